"""The nnU-Net engine: real trainers by name, refusals before anything is trained, and one whole run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.demo import QUICK, DemoSettings, phantom_experiment
from nnunet_osasis.evaluation.experiment import nnunet as nnunet_engine
from nnunet_osasis.evaluation.experiment.cells import all_cells
from nnunet_osasis.evaluation.experiment.config import Budget, experiment_from_json
from nnunet_osasis.evaluation.experiment.runner import Options, run_experiment
from nnunet_osasis.nnunet.raw_dataset import CHANNEL_NAMES, read_images, write_raw_dataset

from .sites import values, write_data

BUDGET = Budget(engine="nnunet", trainer_length="10epochs")
FULL = replace(BUDGET, trainer_length="")  # the length in which every network has its trainers
KINDS = ["none", "histogram_matching", "pooled_reinhard", "fda", "gin", "da5", "osasis", "truth"]


def experiment(**changes):
    """The small experiment of these tests with the nnU-Net engine."""
    given = {"methods": KINDS, "networks": ["unet"], "seeds": [0, 1], **changes}
    return replace(experiment_from_json({**values(), **given}), budget=BUDGET)


def test_every_method_with_a_trainer_finds_it_in_its_length():
    made = experiment()
    names = {cell.method.name: nnunet_engine.trainer_of(cell, made.budget) for cell in all_cells(made)}
    assert names["none"] == names["truth"] == "nnUNetTrainer_10epochs"
    assert names["fda"] == "nnUNetTrainerFDA_10epochs" and names["da5"] == "nnUNetTrainerDA5_10epochs"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["none", "identity"]}, "needs a trainer for identity with unet"),
        ({"methods": ["none", "gin"], "networks": ["pranet"]}, "needs a trainer for gin with pranet; got none"),
        ({"networks": [{"name": "unet", "monai": "BasicUNet"}], "methods": ["none"]}, "a trainer for none with unet"),
        ({"methods": ["none", {"name": "fda", "beta": 0.1}]}, "takes methods and networks as its trainers make them"),
        ({"networks": [{"name": "unet", "arguments": {"features": [4]}}], "methods": ["none"]}, "arguments"),
    ],
)
def test_what_has_no_trainer_is_refused_before_anything_is_trained(changes, message):
    with pytest.raises(OsasisError, match=message):
        nnunet_engine.check(replace(experiment(**changes), budget=FULL))


def test_lengths_that_do_not_exist_are_named():
    made = replace(experiment(methods=["none"]), budget=replace(BUDGET, trainer_length="7epochs"))
    with pytest.raises(OsasisError, match="no nnUNetTrainer_7epochs"):
        nnunet_engine.check(made)


def test_configurations_and_datasets_keep_targets_apart():
    made = experiment()
    cells = {(cell.method.name, cell.target): cell for cell in all_cells(made) if cell.seed == 0}
    configurations = {place: nnunet_engine.configuration_of(cell) for place, cell in cells.items()}
    stylized = [name for place, name in configurations.items() if cells[place].method.kind not in ("none", "truth")]
    with_reference = [name for name in stylized if name != nnunet_engine.BASE]
    assert len(set(with_reference)) == len(with_reference) >= 4
    truth = next(cell for (name, _), cell in cells.items() if name == "truth")
    assert nnunet_engine.configuration_of(truth) == nnunet_engine.BASE
    assert nnunet_engine.dataset_of(truth, made)[0] != nnunet_engine.dataset_of(cells["none", None], made)[0]


FULL_CONFIGURATION = {
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


@pytest.mark.parametrize("settings", [{}, QUICK], ids=["full", "quick"])
def test_nnunet_resolves_the_small_configurations_of_the_demo(tmp_path, settings):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    budget = phantom_experiment(DemoSettings(output=tmp_path, **settings)).budget
    plans = {"plans_name": "nnUNetPlans", "configurations": {"2d": FULL_CONFIGURATION}}
    (tmp_path / "nnUNetPlans.json").write_text(json.dumps(plans))
    options = {"probability": 0.5, "reference": "reference.png"}
    folds = [{"train": ["a"], "val": ["b"]}]
    nnunet_engine._add_configurations(tmp_path, budget, {"report_osasis_b": options}, folds)
    configuration = PlansManager(str(tmp_path / "nnUNetPlans.json")).get_configuration("report_osasis_b")
    network = configuration.network_arch_init_kwargs
    assert configuration.data_identifier == "nnUNetPlans_2d" and configuration.batch_size == budget.batch_size
    assert len(network["strides"]) == network["n_stages"] == len(budget.features)
    assert len(network["n_conv_per_stage_decoder"]) == network["n_stages"] - 1
    assert budget.patch % 2 ** (network["n_stages"] - 1) == 0  # every pooling fits the patch
    assert configuration.configuration["osasis"] == options
    assert json.loads((tmp_path / "splits_final.json").read_text()) == folds


def test_channel_names_mean_division_by_255():
    from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

    assert {get_normalization_scheme(name).__name__ for name in CHANNEL_NAMES.values()} == {"RGBTo01Normalization"}


def test_a_raw_dataset_holds_the_pictures_as_they_are(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    write_raw_dataset(tmp_path, {"case": image}, {"case": image[..., 0] % 2})
    assert np.array_equal(read_images(tmp_path / "imagesTr")["case"], image)
    assert (tmp_path / "labelsTr" / "case.png").is_file() and (tmp_path / "dataset.json").is_file()


@pytest.mark.parametrize("count", [5, 12, 80])
def test_folds_validate_on_different_cases_and_keep_most_for_training(count):
    cases = [f"train_{i:03d}" for i in range(count)]
    first, second = nnunet_engine._folds(cases, 2)
    for fold in (first, second):
        assert sorted(fold["train"] + fold["val"]) == cases and len(fold["train"]) >= 0.8 * count
    assert not set(first["val"]) & set(second["val"])


@pytest.mark.slow
def test_a_whole_run_trains_predicts_and_is_not_repeated(tmp_path):
    write_data(tmp_path / "data")
    small = replace(BUDGET, trainer_length="1epoch", side=32, patch=32, batch_size=2, features=(4, 8, 8))
    made = replace(experiment(methods=["none", "truth"], seeds=[0]), budget=small)
    options = Options(tmp_path / "work", workers=1)
    first = run_experiment(made, tmp_path / "data", options)
    assert {row["method"] for row in first.rows} == {"none", "truth"}
    assert all(0 <= row["dice"] <= 1 for row in first.rows)
    # The discs are learned in one epoch, which a wrong orientation or channel would not let happen.
    assert np.mean([row["dice"] for row in first.rows if row["method"] == "none" and row["test"] == "source"]) > 0.5
    logs = sorted((tmp_path / "work/nnunet/logs").glob("*.log"))
    before = [log.stat().st_mtime_ns for log in logs]
    again = run_experiment(made, tmp_path / "data", options)
    assert again.rows == first.rows
    assert [log.stat().st_mtime_ns for log in logs] == before
