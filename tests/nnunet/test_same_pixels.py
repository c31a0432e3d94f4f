"""One stylizer folder, three doors: the library, MONAI's transform and nnU-Net's cache give the same pixels."""

import shutil

import blosc2
import numpy as np
import pytest
from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess
from specimens import build_tiny

from monai_transforms import OSASISStylized
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.nnunet.cache import StylizedCache
from nnunet_osasis.nnunet.cases import open_cases
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

from .conftest import RGB, VOLUME

CHANNELS = {RGB: 3, VOLUME: 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A stylizer folder for each dataset."""
    root = tmp_path_factory.mktemp("stylizers")
    for dataset, channels in CHANNELS.items():
        build_tiny(root / dataset, channels=channels)
    volume = OSASISStylizer.from_pretrained(root / VOLUME)
    scan = volume.configured(readout="local_affine", intensity=IntensityRange("channel_percentile", 0.5, 99.5))
    scan.save_pretrained(root / VOLUME)
    return root


@pytest.mark.parametrize(("dataset", "configuration"), [(RGB, "2d"), (VOLUME, "2d"), (VOLUME, "3d_fullres")])
def test_library_monai_and_nnunet_agree_bit_for_bit(home, folders, dataset, configuration):
    """Without normalization and resampling nnU-Net's preprocessed file holds the stylized values themselves."""
    count = CHANNELS[dataset]
    home.edit_plans(
        dataset, configuration,
        normalization_schemes=["NoNormalization"] * count, use_mask_for_norm=[False] * count,
    )  # fmt: skip
    shutil.rmtree(home.preprocessed(dataset) / f"nnUNetPlans_{configuration}")
    preprocess([int(dataset[7:10])], configurations=[configuration], num_processes=[1], verbose=False)
    stylizer = OSASISStylizer.from_pretrained(folders / dataset)
    setup = NnunetConfiguration.load(dataset, configuration)
    cache = StylizedCache(setup, stylizer, None)
    cache.build(["case_0", "case_1"])
    for key in ("case_0", "case_1"):
        given = open_cases(setup).unnormalized(key)  # (C, Z, Y, X)
        library = stylizer.stylize_array(given)
        as_monai = np.ascontiguousarray(given.transpose(0, 3, 2, 1))  # (C, X, Y, Z)
        monai = OSASISStylized("image", folders / dataset, axes="xyz")({"image": as_monai})["image"]
        monai = monai.transpose(0, 3, 2, 1)
        nnunet = blosc2.open(str(cache.image_path(key)))[:]
        assert np.abs(library - given).max() > 1
        np.testing.assert_array_equal(monai, library)
        np.testing.assert_array_equal(nnunet, library)


def test_the_planner_puts_the_axis_to_cut_along_in_front(home):
    """nnU-Net transposes by spacing itself, so that both sides cut a sagittal scan the same way."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_osasis.images.slices import slice_axis

    plans = PlansManager(str(home.preprocessed(VOLUME) / "nnUNetPlans.json"))
    spacing = np.array(plans.original_median_spacing_after_transp)
    assert slice_axis(spacing) == 0
    original = np.empty(3)
    original[plans.transpose_forward] = spacing
    assert plans.transpose_forward[0] == slice_axis(original)
