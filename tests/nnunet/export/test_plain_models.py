"""A model of ours becomes one that nnU-Net alone predicts with, bit for bit, or nothing is written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5

from nnunet_osasis import OsasisError, trainers
from nnunet_osasis.nnunet.export import networks, open_model_folder, plain
from nnunet_osasis.nnunet.export.record import compare
from nnunet_osasis.runtime.records import read_sealed_json
from nnunet_osasis.runtime.storage import sha256_of_file
from nnunet_osasis.scripts import export

from .conftest import RGB, VOLUME
from .plain_prediction import logits_and_labels

PLAIN = "nnUNetTrainer__nnUNetPlans__2d"


@pytest.fixture
def model(train):
    return train("nnUNetTrainerOSASIS", RGB)


def exported(model, output, *more):
    export.main(["-i", str(model), "-o", str(output), *more])
    return next(output.glob("Dataset*/nnUNetTrainer__*"))


@pytest.mark.parametrize(
    ("name", "dataset"),
    [("nnUNetTrainerOSASIS", RGB), pytest.param("nnUNetTrainerGIN", VOLUME, marks=pytest.mark.slow)],
)
def test_nnunet_without_our_package_gives_identical_logits(train, images, elsewhere, tmp_path, name, dataset):
    model = train(name, dataset)
    ours = logits_and_labels(model, images(dataset))
    theirs = elsewhere(exported(model, tmp_path / "out"), images(dataset))
    np.testing.assert_array_equal(theirs["logits"], ours["logits"])
    np.testing.assert_array_equal(theirs["labels"], ours["labels"])
    assert np.ptp(ours["logits"]) > 0


@pytest.mark.slow
def test_the_trained_model_itself_needs_our_package(model, images, elsewhere):
    """Otherwise the test above would show nothing."""
    with pytest.raises(AssertionError, match="nnUNetTrainerOSASIS"):
        elsewhere(model, images(RGB))


def test_all_folds_are_exported_and_kept_apart(model, images, tmp_path, capsys):
    second = torch.load(model / "fold_0/checkpoint_final.pth", weights_only=False)
    for tensor in second["network_weights"].values():
        tensor.mul_(1.1)
    (model / "fold_1").mkdir()
    torch.save(second, model / "fold_1/checkpoint_final.pth")
    made = exported(model, tmp_path / "out")
    assert "2 fold(s) exported" in capsys.readouterr().out
    assert sorted(path.name for path in made.glob("fold_*")) == ["fold_0", "fold_1"]
    together, one = logits_and_labels(made, images(RGB)), logits_and_labels(model, images(RGB))
    np.testing.assert_array_equal(together["logits"], one["logits"])
    only = exported(model, tmp_path / "one", "-f", "1")
    assert [path.name for path in only.glob("fold_*")] == ["fold_1"]


def test_the_model_of_all_cases_and_another_checkpoint_are_exported_by_name(model, tmp_path):
    (model / "fold_0").rename(model / "fold_all")
    (model / "fold_all/checkpoint_final.pth").rename(model / "fold_all/checkpoint_best.pth")
    made = exported(model, tmp_path / "out", "-f", "all", "-chk", "checkpoint_best.pth")
    assert (made / "fold_all/checkpoint_final.pth").is_file()  # the name nnU-Net looks for
    assert read_sealed_json(made / "osasis_export.json", what="record")["checkpoint"] == "checkpoint_best.pth"


def test_the_checkpoint_holds_nothing_but_what_prediction_needs(model, tmp_path):
    made = exported(model, tmp_path / "out")
    checkpoint = torch.load(made / "fold_0/checkpoint_final.pth", weights_only=True)
    assert set(checkpoint) == {"network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes"}
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    before = json.loads((model / "plans.json").read_text())
    assert before["configurations"]["2d"].pop("osasis")
    assert json.loads((made / "plans.json").read_text()) == checkpoint["init_args"]["plans"] == before
    for name in ("dataset.json", "dataset_fingerprint.json"):
        assert json.loads((made / name).read_text()) == json.loads((model / name).read_text())
    for path in made.rglob("*"):
        assert path.is_dir() or b"osasis" not in path.read_bytes() or path.name == "osasis_export.json"


def test_the_record_says_what_was_made_of_what(model, tmp_path):
    made = exported(model, tmp_path / "out")
    record = read_sealed_json(made / "osasis_export.json", what="record")
    assert record["trainer"] == "nnUNetTrainerOSASIS"
    assert record["folds"]["0"]["checkpoint_sha256"] == sha256_of_file(model / "fold_0/checkpoint_final.pth")
    assert record["folds"]["0"]["compared"]["identical"] is True
    assert record["files_sha256"] == {
        name: sha256_of_file(made / name)
        for name in ("dataset.json", "dataset_fingerprint.json", "fold_0/checkpoint_final.pth", "plans.json")
    }
    assert "not a medical device" in record["notice"]
    assert str(tmp_path) not in json.dumps(record)


def test_the_same_model_gives_the_same_bytes(model, tmp_path):
    first, second = (exported(model, tmp_path / name) for name in ("a", "b"))
    for path in first.rglob("*"):
        assert path.is_dir() or path.read_bytes() == (second / path.relative_to(first)).read_bytes()


def test_a_model_is_found_in_nnunets_results(model, tmp_path, capsys):
    export.main(["-d", "901", "-c", "2d", "-o", str(tmp_path / "out")])
    assert "identical" in capsys.readouterr().out
    assert (tmp_path / "out" / RGB / PLAIN / "fold_0/checkpoint_final.pth").is_file()
    with pytest.raises(OsasisError, match=r"no folder .*nnUNetTrainerFDA.* There are: nnUNetTrainerOSASIS__"):
        export.main(["-d", "901", "-c", "2d", "-tr", "nnUNetTrainerFDA", "-o", str(tmp_path / "out")])
    with pytest.raises(OsasisError, match="With -d the configuration is needed"):
        export.main(["-d", "901", "-o", str(tmp_path / "out")])
    with pytest.raises(OsasisError, match="id or name nnU-Net knows"):
        export.main(["-d", "777", "-c", "2d", "-o", str(tmp_path / "out")])


def test_only_an_earlier_export_is_replaced_and_only_on_request(model, tmp_path):
    made = exported(model, tmp_path / "out")
    with pytest.raises(OsasisError, match=r"must be new.*--overwrite"):
        exported(model, tmp_path / "out")
    (made / "stale").touch()
    exported(model, tmp_path / "out", "--overwrite")
    assert not (made / "stale").exists()
    (made / "osasis_export.json").unlink()  # now it could be somebody's training
    with pytest.raises(OsasisError, match="Only an earlier export"):
        exported(model, tmp_path / "out", "--overwrite")
    assert (made / "fold_0/checkpoint_final.pth").is_file()
    assert {path.name for path in made.parent.iterdir()} <= {PLAIN, ".osasis.lock"}


def test_a_model_that_came_out_different_is_not_exported(model, tmp_path, monkeypatch):
    honest = plain.plain_checkpoint

    def careless(checkpoint, plans, dataset_json):
        result = honest(checkpoint, plans, dataset_json)
        return {**result, "network_weights": {k: v * 1.00001 for k, v in result["network_weights"].items()}}

    monkeypatch.setattr(plain, "plain_checkpoint", careless)
    with pytest.raises(OsasisError, match="trained model's logits"):
        exported(model, tmp_path / "out")
    assert not [path for path in (tmp_path / "out" / RGB).iterdir() if path.name != ".osasis.lock"]


def test_a_difference_of_nan_is_a_difference():
    found = compare(lambda x: x, lambda x: x * float("nan"), (2, 4))
    assert not found.identical
    assert not found.within(1.0)


def test_plans_that_name_our_package_are_refused(model, tmp_path):
    plans = json.loads((model / "plans.json").read_text())
    plans["configurations"]["2d"]["preprocessor_name"] = "nnunet_osasis.SomethingOfOurs"
    (model / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(OsasisError, match="may not name our package"):
        exported(model, tmp_path / "out")


def test_folds_of_different_trainers_are_refused(train, model, tmp_path):
    shutil.copytree(train("nnUNetTrainerGIN", RGB) / "fold_0", model / "fold_1")
    with pytest.raises(OsasisError, match=r"share their trainer; got nnUNetTrainerGIN in .*fold_1"):
        exported(model, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("checkpoint*"))


def test_weights_of_another_network_are_refused(model, tmp_path):
    plans = json.loads((model / "plans.json").read_text())
    plans["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 16]
    (model / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(OsasisError, match="must fit the network"):
        exported(model, tmp_path / "out")


@pytest.mark.parametrize(
    ("fold", "checkpoint", "message"),
    [
        ("3", "checkpoint_final.pth", r"no checkpoint_final.pth of fold 3 in .*with that file: 0"),
        ("all", "checkpoint_final.pth", "of fold all"),
        (None, "checkpoint_none.pth", "of fold any number"),
        ("0", "../fold_0/checkpoint_final.pth", "a file's name within the folds"),
    ],
)
def test_missing_folds_and_checkpoints_are_named(model, fold, checkpoint, message):
    with pytest.raises(OsasisError, match=message):
        open_model_folder(model, None if fold is None else [fold], checkpoint)


def test_every_trainer_is_accepted_and_only_other_networks_are_not_plain():
    for name in trainers.__all__:
        trainer = getattr(trainers, name)
        networks.require_own_trainer(trainer)
        assert networks.has_stock_network(trainer) is not ("PraNet" in name or "UNetPlusPlus" in name)
    with pytest.raises(OsasisError, match="a plain nnU-Net model already"):
        networks.require_own_trainer(nnUNetTrainer)
    with pytest.raises(OsasisError, match="nnUNetTrainerDA5"):
        networks.require_own_trainer(nnUNetTrainerDA5)


def test_the_trainer_is_the_class_that_nnunet_finds_by_name(model, capsys):
    assert export._find_trainer(open_model_folder(model).trainer_name) is trainers.nnUNetTrainerOSASIS
    assert not capsys.readouterr().out
    with pytest.raises(OsasisError, match="no nnUNetTrainerOfSomebody"):
        export._find_trainer("nnUNetTrainerOfSomebody")


def test_a_new_training_can_start_from_the_exported_weights(model, tmp_path):
    made = open_model_folder(exported(model, tmp_path / "out"))
    weights = torch.load(made.checkpoints["0"], weights_only=True)["network_weights"]
    blank = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    network = networks.build_network(trainers.nnUNetTrainerOSASIS, made.plans, made.dataset_json, "2d", blank)
    load_pretrained_weights(network, str(made.checkpoints["0"]))
    loaded = network.state_dict()
    assert all(torch.equal(weights[name], loaded[name]) for name in weights if "seg_layers" not in name)
    assert Path(made.path).name == PLAIN
