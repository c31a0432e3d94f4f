"""Where a training run finds its stylizer."""

from dataclasses import replace

import pytest

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.configuration import NnunetConfiguration, default_stylizer_folder, find_stylizer
from nnunet_osasis.nnunet.options import OsasisOptions

from .conftest import RGB


def test_the_datasets_own_stylizer_is_found_without_being_named(home):
    folder = default_stylizer_folder(901, "2d")
    assert folder == home.preprocessed(RGB) / "osasis" / "2d"
    folder.mkdir(parents=True)
    assert find_stylizer(NnunetConfiguration.load(901, "2d"), OsasisOptions()) == folder


def test_the_plans_come_first(home, tmp_path):
    default_stylizer_folder(901, "2d").mkdir(parents=True)
    assert find_stylizer(NnunetConfiguration.load(901, "2d"), OsasisOptions(stylizer=tmp_path)) == tmp_path


def test_without_a_stylizer_both_places_and_the_command_are_named(home):
    with pytest.raises(OsasisError) as caught:
        find_stylizer(NnunetConfiguration.load(901, "2d"), OsasisOptions())
    message = str(caught.value)
    assert '"osasis": {"stylizer": ...}' in message
    assert str(home.preprocessed(RGB) / "osasis" / "2d") in message
    assert "osasis-pretrain-stylizer -d 901 -c 2d --style reference.png" in message


def test_the_command_names_a_reference_in_the_datasets_own_format(home):
    """nnU-Net's reader of a NIfTI dataset cannot read a .png."""
    setup = NnunetConfiguration.load(901, "2d")
    volumes = replace(setup, dataset_json={**setup.dataset_json, "file_ending": ".nii.gz"})
    with pytest.raises(OsasisError, match=r"--style reference\.nii\.gz"):
        find_stylizer(volumes, OsasisOptions())


def test_a_named_stylizer_that_is_missing_is_not_silently_replaced(home, tmp_path):
    default_stylizer_folder(901, "2d").mkdir(parents=True)
    with pytest.raises(OsasisError, match="nowhere"):
        find_stylizer(NnunetConfiguration.load(901, "2d"), OsasisOptions(stylizer=tmp_path / "nowhere"))
