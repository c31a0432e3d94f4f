"""Cases in native units, and what nnU-Net would have made of them."""

import shutil

import blosc2
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.cases import (
    intensity_hints,
    open_cases,
    read_reference,
    training_keys,
    unnormalized_cases,
)
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.restyle import restyle_with

from .conftest import RGB, VOLUME, Warmer

SCHEMES = [
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
]


def identity(channels):
    return restyle_with(Warmer(channels, gain=1, shift=0), None)


def stored(home, dataset, identifier, key):
    return blosc2.open(str(home.preprocessed(dataset) / identifier / f"{key}.b2nd"))[:]


@pytest.mark.parametrize(
    ("dataset", "configuration", "identifier", "channels"),
    [
        (RGB, "2d", "nnUNetPlans_2d", 3),
        (VOLUME, "2d", "nnUNetPlans_2d", 2),
        (VOLUME, "3d_fullres", "nnUNetPlans_3d_fullres", 2),
    ],
)
def test_an_identity_transfer_gives_nnunets_own_files_bit_for_bit(home, dataset, configuration, identifier, channels):
    cases = open_cases(NnunetConfiguration.load(dataset, configuration))
    for key in cases.keys:
        np.testing.assert_array_equal(
            cases.preprocessed(key, identity(channels)), stored(home, dataset, identifier, key)
        )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("spacing", [[1.0, 1.0, 1.0], [1.5, 1.2, 1.2]])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_identity_holds_for_every_normalization_mask_and_resampling(home, scheme, spacing, masked):
    home.edit_plans(
        VOLUME, "3d_fullres", normalization_schemes=[scheme] * 2, use_mask_for_norm=[masked] * 2, spacing=spacing
    )
    if scheme == "RGBTo01Normalization":
        _make_eight_bit(home)
    cases = open_cases(NnunetConfiguration.load(VOLUME, "3d_fullres"))
    for key in ("case_0", "case_4"):
        np.testing.assert_array_equal(cases.preprocessed(key, identity(2)), cases.preprocessed(key))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_stylized_case_is_what_nnunet_makes_of_the_stylized_image(home, scheme):
    """The proof by files: stylize the raw PNG, let nnU-Net preprocess it, compare."""
    home.edit_plans(RGB, "2d", normalization_schemes=[scheme] * 3)
    setup = NnunetConfiguration.load(RGB, "2d")
    path = home.raw(RGB) / "imagesTr" / "case_2_0000.png"
    image = np.asarray(Image.open(path)).clip(8, None)
    Image.fromarray(image).save(path)
    transfer = Warmer(3, gain=1, shift=-8)  # whole numbers, so that a PNG can hold the result
    expected = open_cases(setup).preprocessed("case_2", restyle_with(transfer, None))
    Image.fromarray(image - 8).save(path)
    np.testing.assert_allclose(open_cases(setup).preprocessed("case_2"), expected, atol=1e-6)


def test_background_outside_nnunets_mask_is_not_painted(home):
    schemes = ["ZScoreNormalization", "NoNormalization"]
    home.edit_plans(VOLUME, "3d_fullres", use_mask_for_norm=[True, False], normalization_schemes=schemes)
    cases = open_cases(NnunetConfiguration.load(VOLUME, "3d_fullres"))
    plain, styled = cases.preprocessed("case_0"), cases.preprocessed("case_0", restyle_with(Warmer(2), None))
    corner = (slice(0, 2), slice(0, 2), slice(0, 2))
    assert (plain[0][corner] == 0).all()
    assert (styled[0][corner] == 0).all()
    assert (styled[1][corner] != plain[1][corner]).any()


def test_cases_come_in_native_units_transposed_and_cropped(home):
    cases = dict(unnormalized_cases(901, "2d", keys=["case_1"]))
    image = np.asarray(Image.open(home.raw(RGB) / "imagesTr" / "case_1_0000.png"))
    np.testing.assert_array_equal(cases["case_1"][:, 0], image.transpose(2, 0, 1))
    volume = dict(unnormalized_cases(VOLUME, "3d_fullres", keys=["case_0"]))["case_0"]
    assert volume.shape[0] == 2
    assert max(volume.shape[1:]) < 32
    assert volume[0].max() > 300


def test_without_raw_images_invertible_normalizations_come_back_exactly(home, monkeypatch):
    with_raw = dict(unnormalized_cases(RGB, "2d"))
    styled = open_cases(NnunetConfiguration.load(RGB, "2d")).preprocessed("case_0", restyle_with(Warmer(3), None))
    monkeypatch.delenv("nnUNet_raw")
    without = dict(unnormalized_cases(RGB, "2d"))
    assert sorted(without) == sorted(with_raw)
    for key, image in without.items():
        np.testing.assert_array_equal(image, with_raw[key])
    cases = open_cases(NnunetConfiguration.load(RGB, "2d"))
    np.testing.assert_allclose(cases.preprocessed("case_0", restyle_with(Warmer(3), None)), styled, atol=1e-6)


def test_without_raw_images_ct_comes_back_within_the_plans_percentiles(home, monkeypatch):
    plans = home.edit_plans(VOLUME, "3d_fullres", normalization_schemes=["CTNormalization"] * 2)
    folder = home.preprocessed(VOLUME) / "nnUNetPlans_3d_fullres"
    setup = NnunetConfiguration.load(VOLUME, "3d_fullres")
    raw = open_cases(setup)
    blosc2.asarray(raw.preprocessed("case_0"), urlpath=str(folder / "case_0.b2nd"), mode="w")
    properties = plans["foreground_intensity_properties_per_channel"]["1"]
    expected = np.clip(raw.unnormalized("case_0")[1], properties["percentile_00_5"], properties["percentile_99_5"])
    monkeypatch.setenv("nnUNet_raw", str(home.root / "nowhere"))
    np.testing.assert_allclose(open_cases(setup).unnormalized("case_0")[1], expected, atol=1e-2)


def test_without_raw_images_z_score_is_refused_with_the_reason(home, monkeypatch):
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(OsasisError, match="ZScoreNormalization keeps no record") as caught:
        open_cases(NnunetConfiguration.load(VOLUME, "3d_fullres"))
    assert "nnUNet_raw" in str(caught.value)


def test_without_raw_images_a_resampled_case_is_refused(home, monkeypatch):
    home.edit_plans(VOLUME, "3d_fullres", normalization_schemes=["NoNormalization"] * 2)
    monkeypatch.delenv("nnUNet_raw")
    cases = open_cases(NnunetConfiguration.load(VOLUME, "3d_fullres"))
    assert cases.unnormalized("case_0").shape[0] == 2
    with pytest.raises(OsasisError, match="case_4 was resampled"):
        cases.unnormalized("case_4")


def test_a_case_whose_raw_image_is_missing_is_named(home):
    (home.raw(RGB) / "imagesTr" / "case_3_0000.png").unlink()
    with pytest.raises(OsasisError, match="case_3"):
        list(unnormalized_cases(RGB, "2d", keys=["case_3"]))


def test_references_are_read_as_the_dataset_is(home, tmp_path):
    image = read_reference(home.raw(RGB) / "imagesTr" / "case_0_0000.png", RGB, "2d")
    assert image.shape == (3, 1, 64, 56)
    volume = read_reference(home.raw(VOLUME) / "imagesTr" / "case_0_0000.nii.gz", VOLUME, "3d_fullres")
    assert volume.shape[0] == 2
    Image.fromarray(np.zeros((8, 8), np.uint8) + 9).save(tmp_path / "gray.png")
    with pytest.raises(OsasisError, match="3 channel"):
        read_reference(tmp_path / "gray.png", RGB, "2d")
    (tmp_path / "text.nii.gz").write_text("no image")
    with pytest.raises(OsasisError, match=r"SimpleITKIO|Nibabel"):
        read_reference(tmp_path / "text.nii.gz", VOLUME, "3d_fullres")
    with pytest.raises(OsasisError, match="must exist"):
        read_reference(tmp_path / "absent.png", RGB, "2d")


def test_intensity_hints_name_scheme_and_percentiles(home):
    first, second = intensity_hints(902, "3d_fullres")
    assert (first.name, first.scheme) == ("T1", "ZScoreNormalization")
    assert second.scheme == "CTNormalization"
    assert second.percentile_00_5 < second.percentile_99_5


@pytest.mark.parametrize("fold", [0, 4, 7, "all"])
def test_training_keys_are_those_nnunet_trains_on(home, fold):
    before = training_keys(901, fold)
    assert not (home.preprocessed(RGB) / "splits_final.json").exists()
    setup = NnunetConfiguration.load(RGB, "2d")
    plans = {**setup.plans.plans, "continue_training": False}
    trainer = nnUNetTrainer(plans, "2d", fold, setup.dataset_json, device=torch.device("cpu"))
    expected = sorted(map(str, trainer.do_split()[0]))
    assert before == expected
    assert training_keys("901", str(fold)) == expected


def test_an_unprepared_dataset_is_answered_with_the_command(home):
    shutil.move(home.preprocessed(RGB) / "nnUNetPlans.json", home.root / "away.json")
    with pytest.raises(OsasisError, match="nnUNetv2_plan_and_preprocess -d 901 -c 2d"):
        NnunetConfiguration.load(901, "2d")
    with pytest.raises(OsasisError, match="777"):
        NnunetConfiguration.load(777, "2d")


def _make_eight_bit(home):
    for path in (home.raw(VOLUME) / "imagesTr").iterdir():
        image = sitk.ReadImage(path)
        array = np.clip(sitk.GetArrayFromImage(image) / 4, 0, 255).astype(np.float32)
        changed = sitk.GetImageFromArray(array)
        changed.CopyInformation(image)
        sitk.WriteImage(changed, path)
