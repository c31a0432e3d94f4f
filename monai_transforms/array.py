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

from monai_transforms.layout import arrange, check_axes, check_axis, permutation
from monai_transforms.loading import StylizerHandle
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.image_io import to_dtype
from nnunet_osasis.native import stylize_arrays
from nnunet_osasis.readout import READOUTS
from nnunet_osasis.stylizer import DIRECTIONS, OSASISStylizer, check_strength


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
            MetaTensor, the last axis where spacing is isotropic or unknown, an only axis of length 1.
        axes: what the spatial axes are. ``xyz``: ``(X, Y[, Z])``, as MONAI's readers return files; ``hwd``: rows first,
            ``(H, W[, D])``; ``auto``: the former for MetaTensors that name the file they were read from. Read-outs
            that run networks must see images the way up they were trained on; pixelwise ones do not care.
        device: for a stylizer folder, where it works (``cpu`` by default).
        batched: inputs have a batch axis first, ``(B, C, H, W[, D])``, as a DataLoader returns them.

    Raises:
        OsasisError: no stylizer there, unknown options; on use: wrong channel count or rank, NaN, empty, boolean or
            constant images, a batch without ``batched``, CUDA in a forked worker.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012 (MONAI's own form)

    def __init__(
        self,
        stylizer: str | Path | OSASISStylizer,
        strength: float | None = None,
        direction: str = "source_to_target",
        readout: str | None = None,
        slice_axis: int | str = "auto",
        axes: str = "auto",
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
        self.slice_axis, self.axes, self.batched = check_axis(slice_axis), check_axes(axes), batched

    def __call__(self, img: NdarrayOrTensor, strength: float | Sequence[float] | None = None) -> Any:
        """Same shape, dtype and kind as ``img``; ``strength`` overrides the constructor's, one or one per sample."""
        stylizer = self.handle.get()
        wanted = next(s for s in (strength, self.strength, stylizer.config.strength) if s is not None)
        array = self._as_numpy(img)
        samples = list(array) if self.batched else [array]
        strengths = [check_strength(s) for s in (wanted if isinstance(wanted, Sequence) else [wanted] * len(samples))]
        orders = [
            permutation(img, sample.shape[1:], self.axes, self.slice_axis, i) if sample.ndim in (3, 4) else ()
            for i, sample in enumerate(samples)
        ]
        given = [arrange(s, order) if order else s for s, order in zip(samples, orders, strict=True)]
        done = stylize_arrays(stylizer, given, strengths, direction=self.direction, readout=self.readout)
        results = [
            to_dtype(arrange(image, np.argsort(order).tolist()), array.dtype) if weight else sample.copy()
            for image, order, weight, sample in zip(done, orders, strengths, samples, strict=True)
        ]
        result = torch.from_numpy(np.stack(results) if self.batched else results[0])
        return convert_to_dst_type(result, img, dtype=img.dtype)[0]

    def _as_numpy(self, img: NdarrayOrTensor) -> np.ndarray:
        if isinstance(img, MetaTensor) and img.is_batch and not self.batched:
            raise OsasisError(
                "The transform takes one sample at a time",
                found=f"a batch {tuple(img.shape)}",
                remedy="Say batched=True.",
            )
        if len(img) == 0 and self.batched:
            raise OsasisError("A batch must hold samples", found=f"shape {tuple(img.shape)}", remedy="Skip empty ones.")
        if isinstance(img, torch.Tensor) and img.dtype == torch.bfloat16:  # numpy has no such type
            img = img.float()
        array = np.asarray(convert_to_numpy(img))
        if array.dtype == bool:
            raise OsasisError(
                "An image must hold intensities", found="dtype bool", remedy="Leave labels out of the keys."
            )
        return array.astype(array.dtype.newbyteorder("="), copy=False)


class RandOSASISStylize(RandomizableTransform):
    """Restyle an image with probability ``prob``, at a random strength.

    Args:
        stylizer, direction, readout, slice_axis, axes, device, batched: as in :py:class:`OSASISStylize`. With
            ``batched``, every sample has its own draw.
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
        axes: str = "auto",
        device: str | None = None,
        batched: bool = False,
    ) -> None:
        if not 0 <= prob <= 1:
            raise OsasisError("prob must lie in [0, 1]", found=prob, remedy="0.5 restyles every other image.")
        super().__init__(prob)
        low, high = strength if isinstance(strength, Sequence) else (strength, strength)
        if check_strength(low) > check_strength(high):
            raise OsasisError("The strength's interval must rise", found=strength, remedy="Give (lowest, highest).")
        self.interval = (float(low), float(high))
        self.stylize = OSASISStylize(stylizer, None, direction, readout, slice_axis, axes, device, batched)
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
            raise OsasisError(
                "There must be a draw to repeat", found="randomize=False at first use", remedy="Call randomize() first."
            )
        return self.stylize(img, strength=self.strengths) if self._do_transform else img
