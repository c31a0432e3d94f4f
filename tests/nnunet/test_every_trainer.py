"""One contract for every trainer of ours, in real, tiny nnU-Net runs: train, validate, resume, predict."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_raw
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from nnunet_osasis import trainers
from nnunet_osasis.networks import imagenet
from nnunet_osasis.nnunet.trainer import StylizedTraining

from .conftest import RGB, VOLUME, Warmer, make_trainer

FAMILIES = sorted({re.sub(r"_\d+epochs?$", "", name) for name in trainers.__all__})
CONTROLS = re.compile("HistogramMatching|Reinhard|FDA|GIN")
RUNS = [
    pytest.param(
        name, dataset, configuration, marks=[pytest.mark.slow] if CONTROLS.search(name) and dataset == VOLUME else []
    )
    for name in FAMILIES
    for dataset, configuration in ((RGB, "2d"), (VOLUME, "3d_fullres"))
    if not (name.endswith("PraNet") and configuration != "2d")
]


def make(home, name, dataset, configuration, **options):
    """The trainer; stylized ones get a stand-in for the stylizer, controls a reference from the dataset itself."""
    options["backbone"] = "test_resnet"
    trainer = getattr(trainers, name)
    if issubclass(trainer, StylizedTraining):
        options["probability"] = 1.0
        if "OSASIS" in name:
            options["transfer"] = Warmer(3 if dataset == RGB else 2)
        else:
            ending = ".png" if dataset == RGB else ".nii.gz"
            options["reference"] = str(home.raw(dataset) / f"imagesTr/case_3_0000{ending}")
    return make_trainer(home, dataset, configuration, name, **options)


def predict(trainer):
    """One training image, predicted as a user's would be: (image, labels, probabilities)."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,), "checkpoint_final.pth")
    assert predictor.trainer_name == type(trainer).__name__
    images = sorted(map(str, (Path(nnUNet_raw) / trainer.plans_manager.dataset_name / "imagesTr").glob("case_0_*")))
    data, properties = trainer.plans_manager.image_reader_writer_class().read_images(images)
    return data, *predictor.predict_single_npy_array(data, properties, save_or_return_probabilities=True)


@pytest.mark.parametrize(("name", "dataset", "configuration"), RUNS, ids=lambda value: str(value)[-26:])
def test_train_validate_resume_and_predict(nnunet, monkeypatch, name, dataset, configuration):
    monkeypatch.setattr(imagenet, "find_imagenet_weights", lambda backbone: None)
    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda self, folder: None)
    nnunet.edit_plans(RGB, "2d", patch_size=[48, 40])  # several windows per case, sizes that need padding
    nnunet.edit_plans(VOLUME, "3d_fullres", patch_size=[24, 32, 32])
    trainer = make(nnunet, name, dataset, configuration)
    trainer.run_training()
    caches = list(nnunet.preprocessed(dataset).glob("*_osasis_*[0-9a-f]"))
    assert len(caches) == issubclass(type(trainer), StylizedTraining)

    trainer.perform_actual_validation()
    output = Path(trainer.output_folder)
    assert "foreground_mean" in json.loads((output / "validation" / "summary.json").read_text())

    (output / "checkpoint_final.pth").rename(output / "checkpoint_latest.pth")
    resumed = make(nnunet, name, dataset, configuration, epochs=2, proceed=True)
    maybe_load_checkpoint(resumed, True, False)
    for key, value in trainer.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key
    resumed.run_training()
    assert resumed.current_epoch == 2
    assert np.isfinite(resumed.logger.get_value("train_losses", None)).all()

    data, labels, probabilities = predict(trainer)
    assert labels.shape == data.shape[1:]
    assert probabilities.shape == (2, *data.shape[1:])
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-3)
