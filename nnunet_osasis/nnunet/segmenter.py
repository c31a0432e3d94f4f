"""A trained nnU-Net as the structure gate's frozen segmenter."""

from __future__ import annotations

from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.storage import sha256_of_file, sha256_of_json


class NnunetSegmenter:
    """Segments arrays in native units with a model folder of nnU-Net (``Trainer__plans__configuration``).

    nnU-Net loads its own checkpoint, which is a pickle: give it only models that you trust. Spacing is taken to be the
    plan's own, since the gate compares two segmentations on one grid, and axes to be in the plan's order (slices
    first).

    Args:
        folder: with ``plans.json``, ``dataset.json`` and at least one finished fold, the first of which is used.
        device: where the network runs, such as ``cpu`` or ``cuda``.

    Raises:
        OsasisError: when one of them is missing or cannot be loaded.
    """

    def __init__(self, folder: str | Path, *, device: str = "cpu") -> None:
        self.folder, self.device = Path(folder), device
        checkpoints = sorted(self.folder.glob("fold_*/checkpoint_final.pth"))
        if not checkpoints or not (self.folder / "plans.json").is_file():
            raise OsasisError(
                "A segmenter is a model folder that nnU-Net trained to its end",
                found=f"no plans.json and fold_*/checkpoint_final.pth in {self.folder}",
                remedy="Give .../nnUNet_results/Dataset.../Trainer__plans__configuration.",
            )
        self._checkpoint = checkpoints[0]

    def on(self, device: str) -> NnunetSegmenter:
        """The same model on another device; its network is loaded at first use."""
        return self if device == self.device else NnunetSegmenter(self.folder, device=device)

    def __reduce__(self) -> tuple:
        return partial(NnunetSegmenter, device=self.device), (self.folder,)  # without the loaded network

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of plans and weights."""
        return sha256_of_json([sha256_of_file(path) for path in (self.folder / "plans.json", self._checkpoint)])

    @cached_property
    def _predictor(self) -> Any:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        predictor = nnUNetPredictor(
            use_mirroring=False,
            perform_everything_on_device=self.device != "cpu",
            device=torch.device(self.device),
            allow_tqdm=False,
        )
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
        """Segment ``(C, H, W)`` or ``(C, D, H, W)`` into labels ``(H, W)`` or ``(D, H, W)``.

        Raises:
            OsasisError: for another number of channels.
        """
        predictor = self._predictor
        channels = len(predictor.dataset_json.get("channel_names", predictor.dataset_json.get("modality", {})))
        if len(array) != channels:
            raise OsasisError(
                f"The segmenter takes {channels} channel(s)", found=len(array), remedy="Give one for such images."
            )
        volume = array if array.ndim == 4 else array[:, None]
        spacing = list(predictor.configuration_manager.spacing)
        if len(spacing) == 2:  # 2D plans know no distance between slices
            spacing = [999.0, *spacing]
        # The gate's volumes have the plan's order of axes already; the predictor expects the files' order.
        forward, backward = predictor.plans_manager.transpose_forward, predictor.plans_manager.transpose_backward
        image = volume.transpose(0, *(axis + 1 for axis in backward)).astype(np.float32)
        properties = {"spacing": [spacing[axis] for axis in backward]}
        labels = np.asarray(predictor.predict_single_npy_array(image, properties, None, None, False)).transpose(forward)
        return labels if array.ndim == 4 else labels[0]
