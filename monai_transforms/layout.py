"""From MONAI's axes to those a stylizer works in, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import affine_to_spacing

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.slices import slice_axis

AXES = ("auto", "xyz", "hwd")
_READ_BY_MONAI = "filename_or_obj"


def check_axes(axes: str) -> str:
    """Raise ``OsasisError`` unless ``axes`` is one of ``AXES``."""
    if axes not in AXES:
        raise OsasisError("The order of axes must be known", found=axes, remedy=f"Use one of {AXES}.")
    return axes


def check_axis(axis: int | str) -> int | str:
    """Raise ``OsasisError`` unless ``axis`` is ``"auto"`` or a spatial axis of a volume (-3 to 2)."""
    if axis != "auto" and not (isinstance(axis, int) and not isinstance(axis, bool) and -3 <= axis <= 2):
        raise OsasisError(
            "A slice axis is auto, 0, 1 or 2", found=axis, remedy="auto takes the axis of coarsest spacing."
        )
    return axis


def permutation(img: Any, shape: Sequence[int], axes: str, chosen: int | str, index: int = 0) -> tuple[int, ...]:
    """The order in which the spatial axes of one sample go to the stylizer: ``(H, W)``, or ``(D, H, W)`` with the
    axis that is cut along in front.

    Args:
        img: what the transform was given; ``index`` is the sample in it, if it is a batch.
        shape: the sample's spatial shape, two or three numbers.
        axes: ``xyz``: MONAI's readers' order, ``(X, Y[, Z])``; ``hwd``: ``(H, W[, D])``; ``auto``: the former for
            MetaTensors that name the file they were read from.
        chosen: the axis to cut along, counted as in ``shape``, or ``auto``.
    """
    if axes == "auto":
        axes = "xyz" if isinstance(img, MetaTensor) and _READ_BY_MONAI in img.meta else "hwd"
    if len(shape) == 2:
        return (1, 0) if axes == "xyz" else (0, 1)
    order = (2, 1, 0) if axes == "xyz" else (2, 0, 1)
    if chosen == "auto":
        spacing = _spacing(img, index)
        first = slice_axis(None if spacing is None else [spacing[i] for i in order], [shape[i] for i in order])
        front = order[first]
    else:
        front = int(chosen) % 3
    return (front, *(axis for axis in order if axis != front))


def arrange(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Channel-first ``array`` with its spatial axes in ``order``, in memory of its own."""
    return np.ascontiguousarray(array.transpose(0, *(axis + 1 for axis in order)))


def _spacing(img: Any, index: int) -> list[float] | None:
    """Of the three spatial axes of a sample, from the affine matrix; None without one."""
    if not isinstance(img, MetaTensor):
        return None
    affine = img.affine[index] if img.affine.ndim == 3 else img.affine
    if affine.shape[-1] != 4:
        return None
    return [float(value) for value in affine_to_spacing(affine, r=3)]
