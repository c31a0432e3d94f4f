"""Real, tiny nnU-Net runs: train, validate, resume, predict, with stylized training cases."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock

from nnunet_osasis import trainers
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.cases import open_cases
from nnunet_osasis.nnunet.configuration import default_stylizer_folder
from nnunet_osasis.nnunet.dataset import StylizedDataset
from nnunet_osasis.nnunet.restyle import restyle_with
from nnunet_osasis.nnunet.trainer import NetworkTraining, StylizedTraining

from .conftest import RGB, VOLUME, Warmer, make_trainer, tiny_stylizer


@pytest.mark.parametrize(("dataset", "configuration", "channels"), [(RGB, "2d", 3), (VOLUME, "3d_fullres", 2)])
def test_train_validate_resume_and_predict(nnunet, dataset, configuration, channels):
    transfer = Warmer(channels)
    trainer = make_trainer(nnunet, dataset, configuration, transfer=transfer, probability=1.0)
    trainer.run_training()
    training, validation = trainer.dataloader_train.data_loader._data, trainer.dataloader_val.data_loader._data
    assert isinstance(training, StylizedDataset)
    assert not isinstance(validation, StylizedDataset)
    stylized = {path.stem for path in next(nnunet.preprocessed(dataset).glob("*_osasis_*[0-9a-f]")).iterdir()}
    assert stylized == set(training.identifiers)
    assert not stylized & set(validation.identifiers)

    trainer.perform_actual_validation()
    output = Path(trainer.output_folder)
    assert "foreground_mean" in json.loads((output / "validation" / "summary.json").read_text())

    calls = transfer.calls
    (output / "checkpoint_final.pth").rename(output / "checkpoint_latest.pth")
    resumed = make_trainer(nnunet, dataset, configuration, transfer=transfer, epochs=2, proceed=True)
    maybe_load_checkpoint(resumed, True, False)
    assert resumed.current_epoch == 1
    resumed.run_training()
    assert resumed.current_epoch == 2
    assert np.isfinite(resumed.logger.get_value("train_losses", None)).all()
    assert transfer.calls == calls

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,), "checkpoint_final.pth")
    assert predictor.trainer_name == "nnUNetTrainerOSASIS"
    case = open_cases(trainer.setup)._files["case_0"]["images"]
    data, properties = trainer.plans_manager.image_reader_writer_class().read_images(case)
    prediction = predictor.predict_single_npy_array(data, properties)
    assert prediction.shape == data.shape[1:]


def test_batches_hold_what_nnunet_would_have_made_of_the_stylized_images(nnunet):
    trainer = make_trainer(nnunet, RGB, "2d", transfer=Warmer(3), probability=1.0)
    training, validation = trainer.get_tr_and_val_datasets()
    cases = open_cases(trainer.setup)
    for key in training.identifiers:
        expected = cases.preprocessed(key, restyle_with(Warmer(3), None))
        np.testing.assert_array_equal(training.load_case(key)[0][:], expected)
    for key in validation.identifiers:
        np.testing.assert_array_equal(validation.load_case(key)[0][:], cases.preprocessed(key))


def test_the_strength_of_the_plans_reaches_the_transfer(nnunet):
    trainer = make_trainer(nnunet, RGB, "2d", transfer=Warmer(3), probability=1.0, strength=0.0)
    training, _ = trainer.get_tr_and_val_datasets()
    key = training.identifiers[0]
    np.testing.assert_array_equal(training.load_case(key)[0][:], open_cases(trainer.setup).preprocessed(key))


def test_a_wrong_option_stops_before_stylizing(nnunet):
    transfer = Warmer(3)
    with pytest.raises(OsasisError, match="probability"):
        make_trainer(nnunet, RGB, "2d", transfer=transfer, probability=2).get_tr_and_val_datasets()
    assert transfer.calls == 0


def test_without_a_stylizer_the_command_that_makes_one_is_given(nnunet):
    with pytest.raises(OsasisError, match=r"osasis-pretrain-stylizer -d 901 -c 2d --style reference\.png"):
        make_trainer(nnunet, RGB, "2d").get_tr_and_val_datasets()


def test_the_stylizer_in_the_datasets_own_folder_is_used(nnunet):
    """The whole chain with the real class: saved folder, found by default, loaded, applied, cached, drawn."""
    stylizer = tiny_stylizer()
    stylizer.save_pretrained(default_stylizer_folder(901, "2d"))
    trainer = make_trainer(nnunet, RGB, "2d", probability=1.0)
    training, _ = trainer.get_tr_and_val_datasets()
    key = training.identifiers[0]
    expected = open_cases(trainer.setup).preprocessed(key, restyle_with(stylizer, None))
    np.testing.assert_allclose(training.load_case(key)[0][:], expected, atol=1e-5)
    plain = training.original.load_case(key)[0][:]
    assert np.abs(training.load_case(key)[0][:] - plain).mean() > 0.02


@pytest.mark.parametrize("name", ["nnUNetTrainerHistogramMatching", "nnUNetTrainerReinhard", "nnUNetTrainerFDA"])
@pytest.mark.parametrize("named", [True, False], ids=["reference-in-plans", "stylizers-reference"])
def test_controls_imitate_the_same_reference(nnunet, name, named):
    section = {"probability": 1.0}
    reference = np.zeros((3, 40, 40), np.uint8) + np.array([200, 150, 40], np.uint8)[:, None, None]
    reference[:, ::2] -= 30
    if named:
        from PIL import Image

        Image.fromarray(reference.transpose(1, 2, 0)).save(nnunet.preprocessed(RGB) / "new-site.png")
        section["reference"] = "new-site.png"
    else:
        tiny_stylizer(reference).save_pretrained(default_stylizer_folder(901, "2d"))
    training, _ = make_trainer(nnunet, RGB, "2d", name, **section).get_tr_and_val_datasets()
    before = np.mean([training.original.load_case(key)[0][:].mean((1, 2, 3)) for key in training.identifiers], 0)
    after = np.mean([training.load_case(key)[0][:].mean((1, 2, 3)) for key in training.identifiers], 0)
    target = reference.mean((1, 2)) / 255
    assert np.abs(after - target).max() < 0.05 < np.abs(before - target).max()


def test_a_control_on_volumes_reads_every_channel(nnunet):
    reference = nnunet.raw(VOLUME) / "imagesTr" / "case_3_0000.nii.gz"
    trainer = make_trainer(
        nnunet, VOLUME, "3d_fullres", "nnUNetTrainerHistogramMatching", reference=str(reference), probability=1.0
    )
    training, _ = trainer.get_tr_and_val_datasets()
    assert training.load_case(training.identifiers[0])[0].shape[0] == 2


def test_every_trainer_is_its_stock_length_and_pickles():
    for name in trainers.__all__:
        trainer = getattr(trainers, name)
        assert issubclass(trainer, stock.nnUNetTrainer)
        assert pickle.loads(pickle.dumps(trainer)) is trainer  # noqa: S301
        plain = name.startswith(("nnUNetTrainerPraNet", "nnUNetTrainerUNetPlusPlus", "nnUNetTrainerGIN"))
        assert issubclass(trainer, StylizedTraining) is not plain
        assert issubclass(trainer, NetworkTraining) is ("PraNet" in name or "UNetPlusPlus" in name)
        unchanged = trainer.get_tr_and_val_datasets is stock.nnUNetTrainer.get_tr_and_val_datasets
        assert unchanged is plain
        untouched = trainer.get_training_transforms is stock.nnUNetTrainer.get_training_transforms
        assert untouched is not name.startswith("nnUNetTrainerGIN")


@pytest.mark.parametrize(
    ("name", "epochs"),
    [
        ("nnUNetTrainerOSASIS", 1000),
        ("nnUNetTrainerOSASIS_1epoch", 1),
        ("nnUNetTrainerOSASIS_250epochs", 250),
        ("nnUNetTrainerHistogramMatching_20epochs", 20),
        ("nnUNetTrainerReinhard_5epochs", 5),
        ("nnUNetTrainerFDA_20epochs", 20),
        ("nnUNetTrainerGIN_5epochs", 5),
        ("nnUNetTrainerPraNet", 1000),
        ("nnUNetTrainerOSASISPraNet_100epochs", 100),
        ("nnUNetTrainerUNetPlusPlus_20epochs", 20),
    ],
)
def test_lengths_are_nnunets_own(nnunet, name, epochs):
    folder = nnunet.preprocessed(RGB)
    plans = load_json(str(folder / "nnUNetPlans.json"))
    trainer = getattr(trainers, name)(
        {**plans, "continue_training": False},
        "2d",
        0,
        load_json(str(folder / "dataset.json")),
        device=torch.device("cpu"),
    )
    assert trainer.num_epochs == epochs


def test_a_broken_cache_between_two_runs_is_repaired(nnunet):
    transfer = Warmer(3)
    training, _ = make_trainer(nnunet, RGB, "2d", transfer=transfer, probability=1.0).get_tr_and_val_datasets()
    folder = next(nnunet.preprocessed(RGB).glob("*_osasis_*[0-9a-f]"))
    shutil.rmtree(folder)
    again, _ = make_trainer(nnunet, RGB, "2d", transfer=transfer).get_tr_and_val_datasets()
    for key in training.identifiers:
        assert again.load_case(key)[0].shape == (3, 1, 64, 56)
