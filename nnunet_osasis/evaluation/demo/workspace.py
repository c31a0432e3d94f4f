"""Where the demonstration keeps what: one output folder, with nnU-Net's three folders inside."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nnunet_osasis.evaluation.demo.settings import CONFIGURATION, SOURCE_DATASET


@dataclass(frozen=True)
class Workspace:
    """Paths below ``root``, and the environment that makes nnU-Net use them."""

    root: Path

    @property
    def raw(self) -> Path:
        """``nnUNet_raw``."""
        return self.root / "nnUNet_raw"

    @property
    def preprocessed(self) -> Path:
        """``nnUNet_preprocessed``."""
        return self.root / "nnUNet_preprocessed"

    @property
    def results(self) -> Path:
        """``nnUNet_results``."""
        return self.root / "nnUNet_results"

    @property
    def reference(self) -> Path:
        """The one image of the target scanner."""
        return self.root / "data" / "reference.png"

    @property
    def test_images(self) -> Path:
        """Test images of both scanners, predicted in one go; case names begin with the scanner."""
        return self.root / "data" / "test_images"

    @property
    def test_masks(self) -> Path:
        """Masks of :attr:`test_images`."""
        return self.root / "data" / "test_masks"

    @property
    def truth(self) -> Path:
        """Noise-free target-scanner versions of source images (phantom only): of training and of target test scenes."""
        return self.root / "data" / "truth"

    @property
    def source_views(self) -> Path:
        """What the source scanner would have shown of the target test scenes (phantom only)."""
        return self.root / "data" / "source_views"

    @property
    def training_images(self) -> Path:
        """Images of the source dataset."""
        return self.raw / SOURCE_DATASET[1] / "imagesTr"

    @property
    def training_masks(self) -> Path:
        """Masks of the source dataset."""
        return self.raw / SOURCE_DATASET[1] / "labelsTr"

    @property
    def stylizer(self) -> Path:
        """Where ``osasis-pretrain-stylizer -d`` puts the stylizer and ``nnUNetTrainerOSASIS`` finds it."""
        return self.preprocessed / SOURCE_DATASET[1] / "osasis" / CONFIGURATION

    @property
    def to_stylize(self) -> Path:
        """Images that ``osasis-stylize`` shows its work on."""
        return self.root / "data" / "to_stylize"

    @property
    def stylized(self) -> Path:
        """What ``osasis-stylize`` made of them."""
        return self.root / "stylized"

    def predictions(self, method: str, fold: int) -> Path:
        """Predicted masks of :attr:`test_images` by one training."""
        return self.root / "predictions" / f"{method}_{fold}"

    @property
    def logs(self) -> Path:
        """What the commands printed, one file each."""
        return self.root / "logs"

    @property
    def steps(self) -> Path:
        """Records of finished steps."""
        return self.root / "steps"

    def environment(self, *, threads: int) -> dict[str, str]:
        """Environment for child processes: the user's own, with nnU-Net pointed at this folder.

        ``threads`` is how many a command may take for its computations, where the user has not said it.
        """
        return {
            **os.environ,
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
            # One augmentation worker per training, as two trainings share the cores.
            "nnUNet_n_proc_DA": os.environ.get("nnUNet_n_proc_DA", "1"),
            "nnUNet_def_n_proc": os.environ.get("nnUNet_def_n_proc", "1"),
            "MPLBACKEND": "Agg",
            "PYTHONUNBUFFERED": "1",
        }
