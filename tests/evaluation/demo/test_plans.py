"""``2d_demo`` is a configuration nnU-Net itself resolves, and colour keeps its meaning on the way."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from nnunet_osasis.evaluation.demo.plans import demo_configuration, demo_splits
from nnunet_osasis.evaluation.demo.settings import CONFIGURATION, DemoSettings, quick
from nnunet_osasis.nnunet.raw_dataset import CHANNEL_NAMES, read_images, write_raw_dataset

FULL = {
    "data_identifier": "nnUNetPlans_2d",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 4,
    "patch_size": [96, 96],
    "spacing": [1.0, 1.0],
    "normalization_schemes": ["RGBTo01Normalization"] * 3,
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 5,
            "features_per_stage": [32, 64, 128, 256, 512],
            "kernel_sizes": [[3, 3]] * 5,
            "strides": [[1, 1]] + [[2, 2]] * 4,
            "n_conv_per_stage": [2] * 5,
            "n_conv_per_stage_decoder": [2] * 4,
        },
    },
}


@pytest.mark.parametrize("make", [lambda options: options, quick], ids=["full", "quick"])
def test_nnunet_resolves_the_small_configuration(tmp_path, make):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    settings = DemoSettings(**make({"output": tmp_path}))
    before = copy.deepcopy(FULL)
    small = demo_configuration(FULL, settings, tmp_path / "reference.png")
    assert before == FULL
    plans = PlansManager({"plans_name": "nnUNetPlans", "configurations": {"2d": FULL, CONFIGURATION: small}})
    configuration = plans.get_configuration(CONFIGURATION)
    network = configuration.network_arch_init_kwargs
    assert configuration.data_identifier == "nnUNetPlans_2d"
    assert configuration.batch_size == settings.batch
    assert len(network["strides"]) == network["n_stages"] == len(settings.features)
    assert len(network["n_conv_per_stage_decoder"]) == network["n_stages"] - 1
    # Every pooling must fit the patch.
    assert settings.patch % 2 ** (network["n_stages"] - 1) == 0
    assert configuration.configuration["osasis"]["reference"].endswith("reference.png")


def test_channel_names_mean_division_by_255():
    from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

    assert {get_normalization_scheme(name).__name__ for name in CHANNEL_NAMES.values()} == {"RGBTo01Normalization"}


def test_raw_dataset_round_trip(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    write_raw_dataset(tmp_path, {"case": image}, {"case": image[..., 0] % 2})
    assert np.array_equal(read_images(tmp_path / "imagesTr")["case"], image)
    assert (tmp_path / "labelsTr" / "case.png").is_file() and (tmp_path / "dataset.json").is_file()


@pytest.mark.parametrize("count", [5, 12, 80])
def test_folds_validate_on_different_cases_and_keep_most_for_training(tmp_path, count):
    cases = [f"train_{i:03d}" for i in range(count)]
    first, second = demo_splits(cases, DemoSettings(output=tmp_path, repeats=2))
    for fold in (first, second):
        assert sorted(fold["train"] + fold["val"]) == cases and len(fold["train"]) >= 0.8 * count
    assert not set(first["val"]) & set(second["val"])
