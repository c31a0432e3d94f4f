"""``"on_the_fly": true`` in real, tiny nnU-Net runs: train, validate, resume, predict, and nothing else is touched."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_osasis import trainers
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.nnunet.configuration import default_stylizer_folder
from nnunet_osasis.nnunet.dataset import StylizedDataset
from nnunet_osasis.nnunet.trainer import StylizedTraining

from .conftest import RGB, VOLUME, make_trainer, tiny_stylizer
from .test_every_trainer import predict


def save_stylizer(dataset, configuration, folder=None):
    stylizer = tiny_stylizer(channels=3 if dataset == RGB else 2)
    if dataset == VOLUME:
        stylizer = stylizer.configured(intensity=IntensityRange("channel_percentile", 0.5, 99.5))
    stylizer.save_pretrained(folder or default_stylizer_folder(dataset, configuration))


def watched(trainer, seen):
    """The trainer, noting what the network is trained on: epoch, step, what the loader gave, what was made of it."""
    prepare = trainer._prepare_on_the_fly

    def wrapped(keys):
        style = prepare(keys)

        def call(data, keys, *, epoch, step):
            result = style(data, keys, epoch=epoch, step=step)
            seen.append((epoch, step, data, result, style.draws(len(data), epoch=epoch, step=step)))
            return result

        return call

    trainer._prepare_on_the_fly = wrapped
    return trainer


@pytest.mark.parametrize(
    ("name", "dataset", "configuration"),
    [("nnUNetTrainerOSASIS", RGB, "2d"), ("nnUNetTrainerOSASIS", VOLUME, "3d_fullres")],
)
def test_train_validate_resume_and_predict(nnunet, name, dataset, configuration):
    save_stylizer(dataset, configuration)
    options = {"on_the_fly": True, "probability": 1.0, "gate": dataset == RGB}
    seen: list = []
    trainer = watched(make_trainer(nnunet, dataset, configuration, name, **options), seen)
    trainer.run_training()
    assert [(epoch, step) for epoch, step, *_ in seen] == [(0, 0), (0, 1)]  # validation steps are not among them
    assert all(not torch.equal(given, made) and made.isfinite().all() for _, _, given, made, _ in seen)
    assert not isinstance(trainer.dataloader_train.data_loader._data, StylizedDataset)
    assert not list(nnunet.preprocessed(dataset).glob("*_osasis_????????????"))  # no cache
    trainer.perform_actual_validation()
    output = Path(trainer.output_folder)
    assert "foreground_mean" in json.loads((output / "validation" / "summary.json").read_text())

    (output / "checkpoint_final.pth").rename(output / "checkpoint_latest.pth")
    again: list = []
    resumed = watched(make_trainer(nnunet, dataset, configuration, name, epochs=2, proceed=True, **options), again)
    maybe_load_checkpoint(resumed, True, False)
    resumed.run_training()
    assert [(epoch, step) for epoch, step, *_ in again] == [(1, 0), (1, 1)]
    assert not np.array_equal(again[0][4].share, seen[0][4].share)  # other draws
    assert np.isfinite(resumed.logger.get_value("train_losses", None)).all()
    data, labels, _ = predict(trainer)
    assert labels.shape == data.shape[1:]


def test_validation_is_nnunets_own():
    found = [getattr(trainers, name) for name in trainers.__all__]
    stylized = [trainer for trainer in found if issubclass(trainer, StylizedTraining)]
    assert len(stylized) > 10
    assert {trainer.validation_step for trainer in stylized} == {nnUNetTrainer.validation_step}
    assert {trainer.train_step for trainer in stylized} == {StylizedTraining.train_step}
    others = set(found) - set(stylized)
    assert {trainer.train_step for trainer in others} == {nnUNetTrainer.train_step}


def test_one_of_several_stylizers_is_drawn_for_every_sample(nnunet):
    folders = [nnunet.root / "site_1", nnunet.root / "site_2"]
    for folder in folders:
        save_stylizer(RGB, "2d", folder)
    seen: list = []
    options = {"on_the_fly": True, "gate": False, "stylizer": [str(folder) for folder in folders]}
    trainer = watched(make_trainer(nnunet, RGB, "2d", probability=1.0, **options), seen)
    trainer.num_iterations_per_epoch = 6
    trainer.run_training()
    assert {int(style) for *_, draws in seen for style in draws.style} == {0, 1}


def test_the_strength_of_the_plans_is_the_most(nnunet):
    save_stylizer(RGB, "2d")
    seen: list = []
    options = {"on_the_fly": True, "gate": False, "strength": 0.0, "probability": 1.0}
    watched(make_trainer(nnunet, RGB, "2d", **options), seen).run_training()
    assert all(torch.equal(given, made) for _, _, given, made, _ in seen)


def test_a_control_has_no_one_pass(nnunet):
    trainer = make_trainer(nnunet, RGB, "2d", "nnUNetTrainerReinhard", on_the_fly=True)
    with pytest.raises(OsasisError, match="nnUNetTrainerReinhard") as caught:
        trainer.get_tr_and_val_datasets()
    assert 'Leave "on_the_fly" out' in str(caught.value)


def test_a_readout_that_runs_the_networks_needs_a_student(nnunet):
    folder = default_stylizer_folder(RGB, "2d")
    tiny_stylizer().configured(readout="local_affine").save_pretrained(folder)
    with pytest.raises(OsasisError, match="student") as caught:
        make_trainer(nnunet, RGB, "2d", on_the_fly=True).get_tr_and_val_datasets()
    assert "osasis-pretrain-stylizer --distil" in str(caught.value)
