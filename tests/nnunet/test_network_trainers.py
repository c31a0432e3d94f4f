"""PraNet and UNet++ in real, tiny nnU-Net runs: labels, supervision, weights; test_every_trainer.py has the rest."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_raw
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from safetensors.torch import save_file

from nnunet_osasis import trainers
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.networks import PraNet, StructureLoss, imagenet
from nnunet_osasis.nnunet.configuration import NnunetConfiguration

from .conftest import RGB, VOLUME, Warmer, make_trainer

BACKBONE = "test_resnet"
RUNS = {
    "PraNet": ("PraNet", RGB, "2d"),
    "UNet++ 2D": ("UNetPlusPlus", RGB, "2d"),
    "UNet++ 3D": ("UNetPlusPlus", VOLUME, "3d_fullres"),
}
SCHEMES = {
    "labels": {"labels": {"background": 0, "lesion": 1, "core": 2, "rim": 3}},
    "regions": {"labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3}},
    "ignore": {"labels": {"background": 0, "lesion": 1, "core": 2, "ignore": 3}},
    "regions and ignore": {"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}},
}


@pytest.fixture(params=RUNS, ids=str)
def run(request, nnunet, monkeypatch):
    """(home, network, dataset, configuration); patches that need padding and several windows per case."""
    monkeypatch.setattr(imagenet, "find_imagenet_weights", lambda backbone: None)
    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda self, folder: None)
    nnunet.edit_plans(RGB, "2d", patch_size=[48, 40])
    nnunet.edit_plans(VOLUME, "3d_fullres", patch_size=[24, 32, 32])
    return (nnunet, *RUNS[request.param])


def trainer_of(run, *, stylized=False, **options):
    home, network, dataset, configuration = run
    name = f"nnUNetTrainer{'OSASIS' if stylized else ''}{network}"
    return make_trainer(home, dataset, configuration, name, backbone=BACKBONE, **options)


def predict(trainer, probabilities=False):
    """One training image, predicted as a user's would be: (image, answer)."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,), "checkpoint_final.pth")
    assert predictor.trainer_name == type(trainer).__name__
    images = sorted(map(str, (Path(nnUNet_raw) / trainer.plans_manager.dataset_name / "imagesTr").glob("case_0_*")))
    data, properties = trainer.plans_manager.image_reader_writer_class().read_images(images)
    return data, predictor.predict_single_npy_array(data, properties, save_or_return_probabilities=probabilities)


def log_of(trainer):
    return "".join(path.read_text() for path in Path(trainer.output_folder).glob("training_log_*.txt"))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_every_kind_of_label_can_be_trained_and_predicted(run, scheme):
    home, _, dataset, configuration = run
    relabel(home, dataset, configuration, scheme)
    trainer = trainer_of(run)
    trainer.num_iterations_per_epoch = 1
    trainer.run_training()
    heads = trainer.label_manager.num_segmentation_heads
    assert heads == {"labels": 4, "regions": 3, "ignore": 3, "regions and ignore": 2}[scheme]
    for losses in ("train_losses", "val_losses"):
        assert np.isfinite(trainer.logger.get_value(losses, None)).all()
    data, (prediction, probabilities) = predict(trainer, probabilities=True)
    assert prediction.shape == data.shape[1:]
    assert probabilities.shape == (heads, *data.shape[1:])
    if isinstance(trainer.network, PraNet):
        checkpoint = torch.load(Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=False)
        assert bool(checkpoint["network_weights"]["exclusive"]) is not trainer.label_manager.has_regions


def test_without_deep_supervision(run):
    trainer = trainer_of(run)
    trainer.enable_deep_supervision = False
    trainer.num_iterations_per_epoch = 1
    trainer.run_training()
    assert np.isfinite(trainer.logger.get_value("train_losses", None)).all()


def test_all_maps_weigh_the_same_and_have_full_size_targets(run):
    trainer = trainer_of(run)
    trainer.initialize()
    assert trainer.loss.weight_factors == (0.25,) * 4
    assert isinstance(trainer.loss.loss, StructureLoss) is isinstance(trainer.network, PraNet)
    assert trainer._get_deep_supervision_scales() == [[1.0] * len(trainer.configuration_manager.patch_size)] * 4
    trainer.network = torch.compile(trainer.network, backend="eager")
    trainer.set_deep_supervision_enabled(False)
    assert trainer.network._orig_mod.deep_supervision is False


@pytest.mark.parametrize("length", ["", "_5epochs", "_20epochs", "_100epochs"])
def test_nnunet_finds_every_length_by_name(run, length):
    for kind in ("", "OSASIS"):
        name = f"nnUNetTrainer{kind}{run[1]}{length}"
        assert recursive_find_trainer_class_by_name(name) is getattr(trainers, name)


def test_the_hooks_keep_nnunets_signatures(run):
    trainer = getattr(trainers, f"nnUNetTrainer{run[1]}_5epochs")
    for hook in ("__init__", "build_network_architecture"):
        ours, theirs = (inspect.signature(getattr(owner, hook)) for owner in (trainer, stock.nnUNetTrainer))
        assert list(ours.parameters) == list(theirs.parameters)


def test_pranet_learns_with_adam(nnunet):
    trainer = trainer_of((nnunet, "PraNet", RGB, "2d"))
    trainer.initialize()
    assert isinstance(trainer.optimizer, torch.optim.Adam)
    assert trainer.optimizer.param_groups[0]["lr"] == trainer.initial_lr == 1e-4


def test_pranet_keeps_its_own_kind_of_labels_after_pretrained_weights(nnunet):
    trainer = trainer_of((nnunet, "PraNet", RGB, "2d"))
    trainer.initialize()
    trainer.network.set_exclusive(False)  # as -pretrained_weights from a model of regions leaves it
    trainer.run_training()
    assert trainer.network.exclusive


def test_pranet_refuses_volumes_before_any_work(nnunet):
    transfer = Warmer(2)
    trainer = trainer_of((nnunet, "PraNet", VOLUME, "3d_fullres"), stylized=True, transfer=transfer)
    with pytest.raises(OsasisError, match=r"2D network; got patches of 24 x 24 x 24\. Use a 2d .*UNetPlusPlus"):
        trainer.run_training()
    assert transfer.calls == 0


def test_pranet_starts_from_imagenet_and_says_so(nnunet):
    trained = timm.create_model(BACKBONE).state_dict()
    path = nnunet.preprocessed(RGB) / "weights.safetensors"
    save_file(trained, path)
    run = nnunet, "PraNet", RGB, "2d"
    trainer = trainer_of(run, backbone_weights=path.name)
    trainer.initialize()
    first = "conv1.0.weight"
    assert torch.equal(trainer.network.encoder.state_dict()[first], trained[first])
    assert f"ImageNet weights of {BACKBONE}: {path}." in log_of(trainer)
    trainer.run_training()
    path.unlink()  # who continues or predicts elsewhere does not need the file
    resumed = trainer_of(run, backbone_weights=path.name, epochs=2, proceed=True)
    maybe_load_checkpoint(resumed, True, False)
    weights = {n: v for n, v in trainer.network.state_dict().items() if "running" not in n and "tracked" not in n}
    assert all(torch.equal(value, resumed.network.state_dict()[name]) for name, value in weights.items())
    predict(trainer)
    with pytest.raises(OsasisError, match="must be a file"):
        trainer_of(run, backbone_weights=path.name).initialize()


def test_pranet_without_imagenet_says_how_to_get_it(nnunet, monkeypatch):
    monkeypatch.setattr(imagenet, "find_imagenet_weights", lambda backbone: None)
    trainer = trainer_of((nnunet, "PraNet", RGB, "2d"))
    trainer.initialize()
    assert log_of(trainer).count(f'timm.create_model("{BACKBONE}", pretrained=True)') == 1


@pytest.mark.parametrize(
    ("planned", "configuration", "expected"),
    [
        ([4, 8, 8], "2d", (4, 8, 8, 16, 32, 4)),
        ([32, 64, 128, 256, 512, 512, 512], "2d", (32, 64, 128, 256, 512, 32)),
        ([128, 256, 512], "2d", (128, 256, 512, 512, 512, 128)),
        ([64, 128, 256], "3d_fullres", (64, 128, 256, 320, 320, 64)),
    ],
)
def test_unet_plus_plus_is_as_wide_as_the_plans_say(nnunet, monkeypatch, planned, configuration, expected):
    made = {}
    monkeypatch.setattr("nnunet_osasis.networks.UNetPlusPlus", lambda *args, **kwargs: made.update(kwargs))
    trainer = trainer_of((nnunet, "UNetPlusPlus", RGB if configuration == "2d" else VOLUME, configuration))
    trainer.configuration_manager.network_arch_init_kwargs["features_per_stage"] = planned
    trainer.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 3, 2, True)
    assert made["features"] == expected


def relabel(home, dataset, configuration, scheme):
    """Other labels in the preprocessed files: a core in every lesion, and a rim at its corner."""
    path = home.preprocessed(dataset) / "dataset.json"
    content = json.loads(path.read_text()) | SCHEMES[scheme]
    content["regions_class_order"] = [1, 2, 3][: len(content["labels"]) - 1 - ("ignore" in content["labels"])]
    path.write_text(json.dumps(content))
    setup = NnunetConfiguration.load(dataset, configuration)
    labels = setup.plans.get_label_manager(content)
    sampled = list(labels.foreground_regions if labels.has_regions else labels.foreground_labels)
    if labels.has_ignore_label:
        sampled.append([-1, *labels.all_labels])
    folder = home.preprocessed(dataset) / setup.manager.data_identifier
    cases = nnUNetDatasetBlosc2(str(folder))
    for key in cases.identifiers:
        data, seg, _, properties = (part[:] if hasattr(part, "schunk") else part for part in cases.load_case(key))
        lesion = np.argwhere(seg[0] == 1)
        middle, corner = lesion.mean(0).astype(int), lesion.min(0)
        seg[0][tuple(slice(max(0, i - 1), i + 2) for i in middle)] = 2
        seg[0][tuple(slice(i, i + 3) for i in corner)] = 3
        properties["class_locations"] = DefaultPreprocessor._sample_foreground_locations(seg, sampled)
        for file in folder.glob(f"{key}*.b2nd"):
            file.unlink()
        nnUNetDatasetBlosc2.save_case(data, seg, properties, str(folder / key), chunks=data.shape, blocks=data.shape)
