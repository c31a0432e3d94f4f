"""A trained nnU-Net as the structure gate's frozen segmenter."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.storage import sha256_of_file, sha256_of_json


class NnunetSegmenter:
    """Segments arrays in native units with a model folder of nnU-Net (``Trainer__plans__configuration``).

    nnU-Net loads its own checkpoint, which is a pickle: give it only models that you trust. Spacing is taken to be the
    plan's own, since the gate compares two answers on one grid, and axes to be in the plan's order (slices first).

    Args:
        folder: with ``plans.json``, ``dataset.json`` and ``fold_0`` (or ``fold_all``, or the first fold there is).

    Raises ``OsasisError`` when that is not there or cannot be loaded.
    """

    def __init__(self, folder: str | Path, *, device: str = "cpu") -> None:
        self.folder, self.device = Path(folder), device
        found = sorted(self.folder.glob("fold_*/checkpoint_final.pth"))
        if not found or not (self.folder / "plans.json").is_file():
            raise OsasisError(
                "A segmenter is a model folder that nnU-Net trained to its end",
                found=f"no plans.json and fold_*/checkpoint_final.pth in {self.folder}",
                remedy="Give .../nnUNet_results/Dataset.../Trainer__plans__configuration.",
            )
        self._checkpoint = found[0]

    def on(self, device: str) -> NnunetSegmenter:
        """The same model on another device; the network is loaded when it is first asked."""
        return self if device == self.device else NnunetSegmenter(self.folder, device=device)

    def __reduce__(self) -> tuple:
        return _load, (self.folder, self.device)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of plans and weights."""
        return sha256_of_json([sha256_of_file(path) for path in (self.folder / "plans.json", self._checkpoint)])

    @cached_property
    def _predictor(self) -> Any:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(
            use_mirroring=False, perform_everything_on_device=self.device != "cpu",
            device=torch.device(self.device), allow_tqdm=False,
        )  # fmt: skip
        try:
            predictor.initialize_from_trained_model_folder(
                str(self.folder), (self._checkpoint.parent.name.removeprefix("fold_"),), self._checkpoint.name
            )
        except Exception as error:  # nnU-Net and torch raise whatever they like here
            raise OsasisError(
                "The segmenter must be a whole nnU-Net model",
                found=f"{type(error).__name__}: {error} in {self.folder}",
                remedy="Copy or train it anew.",
            ) from error
        return predictor

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Labels ``(H, W)`` or ``(D, H, W)`` of ``(C, H, W)`` or ``(C, D, H, W)``."""
        predictor = self._predictor
        channels = len(predictor.dataset_json.get("channel_names", predictor.dataset_json.get("modality", {})))
        if len(array) != channels:
            raise OsasisError(
                f"The segmenter takes {channels} channel(s)", found=len(array), remedy="Give one for such images."
            )
        volume = array if array.ndim == 4 else array[:, None]
        plan = list(predictor.configuration_manager.spacing)
        plan = [999.0, *plan] if len(plan) == 2 else plan
        # The gate's volumes have the plan's order of axes already, and the predictor is about to make it.
        forward, backward = predictor.plans_manager.transpose_forward, predictor.plans_manager.transpose_backward
        given = volume.transpose(0, *(axis + 1 for axis in backward)).astype(np.float32)
        spacing = [plan[axis] for axis in backward]
        found = predictor.predict_single_npy_array(given, {"spacing": spacing}, None, None, False)
        labels = np.asarray(found).transpose(forward)
        return labels if array.ndim == 4 else labels[0]


def _load(folder: Path, device: str) -> NnunetSegmenter:
    return NnunetSegmenter(folder, device=device)
