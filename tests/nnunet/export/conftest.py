"""Models trained for two iterations in tiny nnU-Net datasets, once per session, and predictions of plain nnU-Net."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.paths import nnUNet_raw
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from nnunet_osasis.networks import imagenet

from ..conftest import RGB, VOLUME, Home, Warmer, home, make_trainer, nnunet, prepared

__all__ = ["RGB", "VOLUME", "home", "nnunet", "prepared"]
CONFIGURATIONS = {RGB: "2d", VOLUME: "3d_fullres"}
BACKBONE = "test_resnet"

Train = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def trained_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models wait for the next test that needs them."""
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def train(nnunet: Home, trained_models: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Trainer and dataset to a model folder of one's own in ``nnUNet_results``."""

    def model(name: str, dataset: str = RGB) -> Path:
        configuration = CONFIGURATIONS[dataset]
        place = Path(dataset) / f"{name}__nnUNetPlans__{configuration}"
        if not (trained_models / place).exists():
            monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda self, folder: None)
            monkeypatch.setattr(imagenet, "find_imagenet_weights", lambda backbone: None)
            transfer = Warmer(3 if dataset == RGB else 2) if "OSASIS" in name else None
            options = {"backbone": BACKBONE, "probability": 1.0}
            trainer = make_trainer(nnunet, dataset, configuration, name, transfer=transfer, **options)
            trainer.run_training()
            shutil.copytree(trainer.output_folder_base, trained_models / place)
        results = nnunet.root / "results" / place
        return Path(shutil.copytree(trained_models / place, results, dirs_exist_ok=True))

    return model


@pytest.fixture
def images() -> Callable[[str], list[str]]:
    """The files of one case of a dataset, one per channel."""
    return lambda dataset: sorted(map(str, (Path(nnUNet_raw) / dataset / "imagesTr").glob("case_0_*")))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Callable[..., dict[str, np.ndarray]]:
    """``logits_and_labels`` of another process, in which our package cannot be imported and no variable is set."""

    def predict(folder: Path, images: list[str], *network: Path) -> dict[str, np.ndarray]:
        output = tmp_path / "elsewhere.npz"
        script = Path(__file__).with_name("plain_prediction.py")
        environment = {k: v for k, v in os.environ.items() if k != "nnUNet_extTrainer" and not k.startswith("PYTHON")}
        command = [sys.executable, "-P", str(script), str(folder), str(output), *map(str, network), *images]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with np.load(output) as found:
            return dict(found)

    return predict
