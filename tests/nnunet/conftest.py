"""Two tiny datasets, planned and preprocessed by nnU-Net itself, and a style transfer that needs no weights."""

from __future__ import annotations

import copy
import hashlib
import json
import multiprocessing
import shutil
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from filelock import FileLock
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from PIL import Image

import nnunet_osasis.nnunet.ext_trainers

RGB, VOLUME = "Dataset901_TinyRGB", "Dataset902_TinyVolume"


class Warmer:
    """A stand-in for the stylizer: ``gain * image + shift``, slice by slice; ``gain=1, shift=0`` is the identity."""

    def __init__(self, channels: int, gain: float = 0.8, shift: float = 20.0) -> None:
        self.in_channels, self.gain, self.shift, self.calls = channels, gain, shift, 0

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"warmer {self.in_channels} {self.gain} {self.shift}".encode()).hexdigest()

    def stylize_array(self, array: np.ndarray, *, strength: float | None = None) -> np.ndarray:
        self.calls += 1
        weight = 1.0 if strength is None else strength
        return (array + weight * (array * (self.gain - 1) + self.shift)).astype(np.float32)


def tiny_stylizer(reference=None, channels=3):
    """A real stylizer, untrained, whose read-out is a fixed colour map."""
    from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
    from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
    from nnunet_osasis.maps.parametric import ParametricMap
    from nnunet_osasis.stylizer.config import StylizerConfig
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

    torch.manual_seed(0)
    autoencoder = DiffusionAutoencoder(
        in_channels=channels,
        sample_size=32,
        block_out_channels=(8, 8),
        encoder_block_out_channels=(8, 8, 8),
        layers_per_block=1,
        attention_sizes=(),
        time_dim=16,
        z_dim=16,
        norm_groups=4,
    )
    spn = StructurePreservingNetwork(in_channels=channels, hidden_channels=(8, 8), time_dim=16)
    three = ((0.8, 0.0, 0.0), (0.0, 0.8, 0.0), (0.0, 0.1, 0.7)), (-0.1, 0.0, 0.1)
    two = ((0.7, 0.3), (-0.3, 0.6)), (0.0, 0.1)
    darker = ParametricMap.affine(*(three if channels == 3 else two))
    names = ("decoder", "pair", "combined", "decoder_inverse", "pair_inverse", "combined_inverse")
    if reference is None:
        reference = np.random.default_rng(0).integers(0, 255, (channels, 32, 32)).astype(np.uint8)
    return OSASISStylizer(
        autoencoder,
        copy.deepcopy(autoencoder.unet),
        spn,
        reference=reference,
        maps=dict.fromkeys(names, darker),
        config=StylizerConfig(),
    )


@dataclass(frozen=True)
class Home:
    """The three folders of nnU-Net, made for one test."""

    root: Path

    def raw(self, dataset: str) -> Path:
        return self.root / "raw" / dataset

    def preprocessed(self, dataset: str) -> Path:
        return self.root / "preprocessed" / dataset

    def edit_plans(self, dataset: str, configuration: str, **changes: object) -> dict:
        """Change a configuration's entries in the plans file and return the plans."""
        path = self.preprocessed(dataset) / "nnUNetPlans.json"
        plans = json.loads(path.read_text())
        plans["configurations"][configuration].update(changes)
        path.write_text(json.dumps(plans))
        return plans


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, worker_id) -> Path:
    """Both datasets after plan and preprocess; made once, also when pytest runs several workers."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "nnunet-prepared"
    root.mkdir(exist_ok=True)
    with FileLock(root / "lock"), pytest.MonkeyPatch.context() as patch:
        if not (root / "done").exists():
            _set_folders(patch, root)
            _use_threads(patch)
            _write_rgb(root / "raw" / RGB)
            _write_volumes(root / "raw" / VOLUME)
            _plan_and_preprocess()
            (root / "done").touch()
    return root


@pytest.fixture
def home(prepared, tmp_path, monkeypatch) -> Home:
    """A private copy of the prepared datasets, with nnU-Net's variables pointing at it."""
    shutil.copytree(prepared, tmp_path / "nnunet", ignore=shutil.ignore_patterns("lock", "done"))
    _set_folders(monkeypatch, tmp_path / "nnunet")
    _use_threads(monkeypatch)
    return Home(tmp_path / "nnunet")


@pytest.fixture
def nnunet(home, monkeypatch):
    """Small networks, one worker, and our trainers where nnU-Net looks for them."""
    monkeypatch.setattr(stock, "default_num_processes", 1)
    monkeypatch.setattr(stock.nnUNetTrainer, "plot_network_architecture", lambda self: None)
    folder = Path(nnunet_osasis.nnunet.ext_trainers.__file__).parent
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    for dataset, configuration, patch in ((RGB, "2d", [64, 64]), (VOLUME, "3d_fullres", [24, 24, 24])):
        plans = load_json(str(home.preprocessed(dataset) / "nnUNetPlans.json"))
        network = plans["configurations"][configuration]["architecture"]
        network["arch_kwargs"].update(
            n_stages=3,
            features_per_stage=[4, 8, 8],
            strides=[[1] * len(patch), [2] * len(patch), [2] * len(patch)],
            kernel_sizes=[[3] * len(patch)] * 3,
            n_conv_per_stage=[1, 1, 1],
            n_conv_per_stage_decoder=[1, 1],
        )
        home.edit_plans(dataset, configuration, architecture=network, patch_size=patch, batch_size=2)
    return home


def make_trainer(
    home, dataset, configuration, name="nnUNetTrainerOSASIS", *, transfer=None, epochs=1, proceed=False, **section
):
    """A trainer as ``nnUNetv2_train`` makes it, cut down to ``epochs`` of two iterations."""
    if section:
        home.edit_plans(dataset, configuration, osasis=section)
    folder = home.preprocessed(dataset)
    plans = load_json(str(folder / "nnUNetPlans.json"))
    trainer = recursive_find_trainer_class_by_name(name)(
        {**plans, "continue_training": proceed},
        configuration,
        0,
        load_json(str(folder / "dataset.json")),
        device=torch.device("cpu"),
    )
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch, trainer.num_epochs = 2, 1, epochs
    trainer.save_every = 1
    if transfer is not None:
        trainer.style_transfer = lambda training_keys: transfer
    return trainer


def _set_folders(patch: pytest.MonkeyPatch, root: Path) -> None:
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir(parents=True, exist_ok=True)
        patch.setenv(f"nnUNet_{name}", str(root / name))
    patch.setenv("nnUNet_n_proc_DA", "0")
    patch.setenv("nnUNet_compile", "f")


def _use_threads(patch: pytest.MonkeyPatch) -> None:
    """nnU-Net starts processes for every step; for images this small, starting them would take all the time."""

    class Threads:
        Pool = ThreadPool

    patch.setattr(multiprocessing, "get_context", lambda method=None: Threads())


def _write_rgb(folder: Path) -> None:
    rng = np.random.default_rng(1)
    for case in range(6):
        yy, xx = np.mgrid[:64, :56]
        label = ((yy - 20 - 4 * case) ** 2 + (xx - 28) ** 2 < 120).astype(np.uint8)
        image = np.clip(rng.normal(90, 25, (64, 56, 3)) + 70 * label[..., None], 0, 255).astype(np.uint8)
        for name, array in ((f"imagesTr/case_{case}_0000.png", image), (f"labelsTr/case_{case}.png", label)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / name)
    _write_dataset_json(folder, {"0": "rgb_to_0_1", "1": "rgb_to_0_1", "2": "rgb_to_0_1"}, ".png")


def _write_volumes(folder: Path) -> None:
    """Two channels, a zero margin that nnU-Net crops, and one case with thicker slices that it resamples."""
    rng = np.random.default_rng(2)
    for case in range(5):
        zz, yy, xx = np.mgrid[:32, :32, :32]
        body = (zz - 15) ** 2 + (yy - 15) ** 2 + (xx - 16) ** 2 < 13**2
        label = ((zz - 15) ** 2 + (yy - 15) ** 2 + (xx - 12 - case) ** 2 < 30).astype(np.uint8)
        channels = [(rng.normal(mean, 30, body.shape) + 100 * label) * body for mean in (300, 40)]
        if case == 4:
            channels, label = [channel[::2] for channel in channels], label[::2]
        files = {f"imagesTr/case_{case}_{i:04d}.nii.gz": c.astype(np.float32) for i, c in enumerate(channels)}
        for name, array in {**files, f"labelsTr/case_{case}.nii.gz": label}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((1.0, 1.0, 2.0 if case == 4 else 1.0))
            sitk.WriteImage(image, folder / name)
    _write_dataset_json(folder, {"0": "T1", "1": "CT"}, ".nii.gz")


def _write_dataset_json(folder: Path, channels: dict[str, str], ending: str) -> None:
    count = len(list((folder / "labelsTr").iterdir()))
    content = {
        "channel_names": channels,
        "labels": {"background": 0, "lesion": 1},
        "numTraining": count,
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def _plan_and_preprocess() -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    extract_fingerprints([901, 902], num_processes=1, clean=True, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_n_proc_DA", "1")  # the planner takes it for a number of threads
        plan_experiments([901, 902])
    preprocess([901], configurations=["2d"], num_processes=[1], verbose=False)
    preprocess([902], configurations=["2d", "3d_fullres"], num_processes=[1, 1], verbose=False)
