"""The array transform."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms.transform import Transform
from monai.utils.enums import TransformBackends
from monai.utils.type_conversion import convert_to_dst_type, convert_to_numpy

from nnunet_osasis.image_io import to_dtype
from nnunet_osasis.stylizer import OSASISStylizer, check_strength


@lru_cache(maxsize=4)
def _load(folder: str, device: str) -> OSASISStylizer:
    """One copy of the weights per process, folder and device, however many transforms use them."""
    return OSASISStylizer.from_pretrained(folder, device=device)


class OSASISStylize(Transform):
    """Restyle a channel-first image ``(C, H, W)`` or volume ``(C, H, W, D)`` in native units with a trained stylizer.

    Deterministic, hence cached by ``CacheDataset`` and ``PersistentDataset``. Kind, dtype, device and MetaTensor
    metadata of the input are kept. Volumes are stylized slice by slice along ``slice_axis``.

    Args:
        stylizer: a folder made by ``osasis-pretrain-stylizer``, or an ``OSASISStylizer``.
        strength: in [0, 1]; None takes the stylizer's own. direction: as in ``OSASISStylizer.stylize``.
        slice_axis: spatial axis (0, 1 or 2) that is cut along; -1, MONAI's last axis, by default.
        device: where the networks of a folder are put.

    Raises:
        OsasisError: no stylizer there, wrong channel count or rank, NaN.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012 (MONAI's own form)

    def __init__(
        self,
        stylizer: str | Path | OSASISStylizer,
        strength: float | None = None,
        direction: str = "source_to_target",
        slice_axis: int = -1,
        device: str = "cpu",
    ) -> None:
        if strength is not None:
            check_strength(strength)
        self.stylizer = stylizer if isinstance(stylizer, OSASISStylizer) else str(stylizer)
        self.strength, self.direction, self.slice_axis, self.device = strength, direction, slice_axis, device

    def resolve(self) -> OSASISStylizer:
        """The stylizer itself; a folder is loaded on first use, once per process."""
        if isinstance(self.stylizer, OSASISStylizer):
            return self.stylizer
        return _load(self.stylizer, self.device)

    def __call__(self, img: NdarrayOrTensor) -> Any:
        """Same shape, dtype and kind as ``img``."""
        array = convert_to_numpy(img)
        axis = self.slice_axis if self.slice_axis < 0 else self.slice_axis + 1
        volume = array.ndim == 4
        sliced = array.swapaxes(1, axis) if volume else array
        done = self.resolve().stylize_array(sliced, strength=self.strength, direction=self.direction)
        done = to_dtype(done.swapaxes(1, axis) if volume else done, array.dtype)
        return convert_to_dst_type(torch.from_numpy(done.copy()), img)[0]
