"""The array transforms: ``OSASISStylize`` and ``RandOSASISStylize``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import RandomizableTransform, Transform
from monai.utils.enums import TransformBackends
from monai.utils.type_conversion import convert_to_dst_type, convert_to_numpy

from monai_transforms.loading import StylizerHandle
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.image_io import to_dtype
from nnunet_osasis.native import stylize_arrays
from nnunet_osasis.readout import READOUTS
from nnunet_osasis.stylizer import DIRECTIONS, OSASISStylizer, check_strength
from nnunet_osasis.volume import check_axis, slice_axis, slices_back, slices_first


class OSASISStylize(Transform):
    """Restyle a channel-first image ``(C, H, W)`` or volume ``(C, H, W, D)`` in native units with a trained stylizer.

    Deterministic, hence cached by ``CacheDataset``, ``PersistentDataset`` and ``CacheNTransDataset``; give the latter
    two ``hash_transform=pickle_hashing``, and another stylizer is another cache entry. Kind, dtype, device and
    MetaTensor metadata of the input are kept. It is no ``LazyTransform``: pending spatial operations are executed
    before it. It cannot be inverted: ``Invertd`` undoes the spatial transforms around it and leaves the style.

    Args:
        stylizer: a folder made by ``osasis-pretrain-stylizer``, or an ``OSASISStylizer``.
        strength: in [0, 1]; None takes the stylizer's own.
        direction: ``source_to_target`` or ``target_to_source``.
        readout: overrides the stylizer's own, see ``nnunet_osasis.readout.READOUTS``.
        slice_axis: spatial axis (0, 1 or 2) that volumes are cut along. ``auto``: the axis of the coarsest spacing of a
            MetaTensor, MONAI's last axis where spacing is isotropic or unknown. Slices are passed on as
            SimpleITK and nnU-Net order them, so the same pixels come out as in an nnU-Net training.
        device: for a stylizer folder, where its networks are put (``cpu`` by default).
        batched: inputs have a batch axis first, ``(B, C, H, W[, D])``, as a DataLoader returns them.

    Raises:
        OsasisError: no stylizer there, unknown options; on use: wrong channel count or rank, NaN, empty or constant
            images, CUDA in a forked worker.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012 (MONAI's own form)

    def __init__(
        self,
        stylizer: str | Path | OSASISStylizer,
        strength: float | None = None,
        direction: str = "source_to_target",
        readout: str | None = None,
        slice_axis: int | str = "auto",
        device: str | None = None,
        batched: bool = False,
    ) -> None:
        if strength is not None:
            check_strength(strength)
        if direction not in DIRECTIONS:
            raise OsasisError("direction must be known", found=direction, remedy=f"Use one of {DIRECTIONS}.")
        if readout is not None and readout not in READOUTS:
            raise OsasisError("The read-out must be known", found=readout, remedy=f"Use one of {READOUTS}.")
        self.handle = StylizerHandle(stylizer, device)
        self.strength, self.direction, self.readout = strength, direction, readout
        self.slice_axis, self.batched = check_axis(slice_axis), batched

    def __call__(self, img: NdarrayOrTensor, strength: float | Sequence[float] | None = None) -> Any:
        """Same shape, dtype and kind as ``img``; ``strength`` overrides the constructor's, one or one per sample."""
        stylizer = self.handle.get()
        wanted = next(s for s in (strength, self.strength, stylizer.config.strength) if s is not None)
        half = isinstance(img, torch.Tensor) and img.dtype == torch.bfloat16  # numpy has no such type
        array = convert_to_numpy(img.float() if half else img)
        arrays = list(array) if self.batched else [array]
        strengths = list(wanted) if isinstance(wanted, Sequence) else [wanted] * len(arrays)
        axes = [self._axis(img, i) for i in range(len(arrays))]
        sliced = [slices_first(_as_itk(a), axis) for a, axis in zip(arrays, axes, strict=True)]
        strengths = [check_strength(s) for s in strengths]
        done = stylize_arrays(stylizer, sliced, strengths, direction=self.direction, readout=self.readout)
        restored = [_as_itk(slices_back(a, axis)) for a, axis in zip(done, axes, strict=True)]
        result = to_dtype(np.stack(restored) if self.batched else restored[0], array.dtype)
        return convert_to_dst_type(torch.from_numpy(result), img, dtype=img.dtype)[0]

    def _axis(self, img: NdarrayOrTensor, index: int) -> int:
        """The axis in SimpleITK's order ``(Z, Y, X)``."""
        if self.slice_axis != "auto":
            return (2 - int(self.slice_axis)) % 3
        if not isinstance(img, MetaTensor) or img.ndim - self.batched != 4:
            return 0
        pixdim: Any = img.pixdim
        spacing = pixdim[index] if img.is_batch else pixdim
        return slice_axis([float(v) for v in reversed(spacing)])


def _as_itk(array: np.ndarray) -> np.ndarray:
    """``(C, X, Y, Z)`` to ``(C, Z, Y, X)`` and back; images keep their axes."""
    return np.ascontiguousarray(array.swapaxes(1, 3)) if array.ndim == 4 else array


class RandOSASISStylize(RandomizableTransform):
    """Restyle an image with probability ``prob``, at a random strength.

    Args:
        stylizer, direction, readout, slice_axis, device, batched: as in :py:class:`OSASISStylize`. With ``batched``,
            every sample has its own draw.
        prob: probability in [0, 1].
        strength: a number, or the interval to draw from uniformly.

    Raises:
        OsasisError: as :py:class:`OSASISStylize`; a probability outside [0, 1]; an interval that falls.
    """

    backend = OSASISStylize.backend

    def __init__(
        self,
        stylizer: str | Path | OSASISStylizer,
        prob: float = 0.5,
        strength: float | tuple[float, float] = (0.5, 1.0),
        direction: str = "source_to_target",
        readout: str | None = None,
        slice_axis: int | str = "auto",
        device: str | None = None,
        batched: bool = False,
    ) -> None:
        if not 0 <= prob <= 1:
            raise OsasisError("prob must lie in [0, 1]", found=prob)
        super().__init__(prob)
        low, high = strength if isinstance(strength, Sequence) else (strength, strength)
        if check_strength(low) > check_strength(high):
            raise OsasisError("The strength's interval must rise", found=strength, remedy="Give (lowest, highest).")
        self.interval = (float(low), float(high))
        self.stylize = OSASISStylize(stylizer, None, direction, readout, slice_axis, device, batched)
        self.strengths: list[float] = []

    def randomize(self, data: Any | None = None) -> None:
        """Draw whether and how strongly; for a batch ``data``, once per sample."""
        count = len(data) if self.stylize.batched and data is not None else 1
        self.strengths = []
        for _ in range(count):
            super().randomize(None)
            self.strengths.append(float(self.R.uniform(*self.interval)) if self._do_transform else 0.0)
        self._do_transform: bool = any(self.strengths)

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> Any:
        """Same shape, dtype and kind as ``img``; ``randomize=False`` repeats the last draw."""
        if randomize:
            self.randomize(img)
        if not self.strengths:
            raise OsasisError("There must be a draw to repeat", found="randomize=False at first use")
        return self.stylize(img, strength=self.strengths) if self._do_transform else img
