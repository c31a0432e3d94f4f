"""From MONAI's axes to those a stylizer works in, and back.

What the axes are is read from the traces that readers and spatial transforms leave in a MetaTensor: the size that the
file has, the affine matrix, the operations that were applied. Where they leave it open, nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.data.meta_tensor import MetaTensor
from monai.data.utils import affine_to_spacing

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.slices import nearest_axes, slice_axis

AXES = ("auto", "xyz", "hwd")

XYZ, HWD = (0, 1, 2), (1, 0, 2)
"""The axis of space (x, y, z) along each axis of an array, in MONAI's order and with rows first."""

_READ_BY_MONAI, _READ_BY_NIBABEL, _READ_BY_PIL = "filename_or_obj", "sizeof_hdr", "width"

ARRAY_SUFFIXES = (".npy", ".npz", ".pkl")
"""Files of arrays, which have rows first, as arrays without metadata have."""


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


@dataclass(frozen=True)
class Layout:
    """How the spatial axes of a sample become ``(H, W)``, or ``(D, H, W)`` with the axis that is cut along in front.

    Attributes:
        order: the sample's axes in that order.
        flips: the sample's axes that run backward.
    """

    order: tuple[int, ...]
    flips: tuple[int, ...] = ()

    def arrange(self, array: np.ndarray) -> np.ndarray:
        """Return a channel-first sample as the stylizer sees it, in memory of its own."""
        turned = np.flip(array, tuple(axis + 1 for axis in self.flips))
        return np.ascontiguousarray(turned.transpose(0, *(axis + 1 for axis in self.order)))

    def back(self, array: np.ndarray) -> np.ndarray:
        """Undo ``arrange``."""
        turned = array.transpose(0, *(axis + 1 for axis in np.argsort(self.order)))
        return np.ascontiguousarray(np.flip(turned, tuple(axis + 1 for axis in self.flips)))


def layout_of(img: Any, shape: Sequence[int], axes: str, chosen: int | str, *, must_know: bool) -> Layout:
    """Find the layout of one sample.

    Args:
        img: the sample, with its metadata if it has some.
        shape: its spatial shape, two or three numbers.
        axes: ``xyz``: MONAI's readers' order, ``(X, Y[, Z])``; ``hwd``: ``(H, W[, D])``; ``auto``: as its traces say,
            ``hwd`` for arrays and tensors that name no file.
        chosen: the axis to cut along, counted as in ``shape``, or ``auto``.
        must_know: whether the result depends on the axes.

    Raises:
        OsasisError: ``must_know``, and the traces leave open which axis is which.
    """
    n, sample = len(shape), img if isinstance(img, MetaTensor) else None
    read = sample is not None and _READ_BY_MONAI in sample.meta
    space: Sequence[int] | None = {"xyz": XYZ, "hwd": HWD}.get(axes, HWD)
    backward: Sequence[bool] = (False,) * n
    if sample is not None and read and axes != "hwd":
        space = _axes_as_read(sample, n) if axes == "auto" else XYZ
        turned = None if space is None else _turned(sample, space, n)
        if turned is not None:
            space, backward = turned
        elif axes == "auto":
            space = None
    if space is None:
        if must_know:
            raise OsasisError(
                "The order of the image's axes must be known to this read-out",
                found=f"shape {tuple(shape)}, whose metadata leave it open",
                remedy='Say axes="xyz" for (X, Y[, Z]), MONAI\'s own order, or axes="hwd" for rows first.',
            )
        space = XYZ
    order = [list(space).index(axis) for axis in ((1, 0) if n == 2 else (2, 1, 0))]
    flips = tuple(i for i in range(n) if backward[i])
    if n == 2:
        return Layout(tuple(order), flips)
    if chosen != "auto":
        front = int(chosen) % 3
    else:
        spacing = _spacing(sample)
        front = order[slice_axis(None if spacing is None else [spacing[i] for i in order], [shape[i] for i in order])]
    return Layout((front, *(axis for axis in order if axis != front)), flips)


def _axes_as_read(sample: MetaTensor, n: int) -> Sequence[int] | None:
    """Return the axis of space along each axis that the reader returned; None if its traces leave that open.

    Nibabel's reader always returns x first. Those of pictures and of ITK can be told to return the reverse: the size
    tells, unless it reads the same both ways.
    """
    if str(sample.meta[_READ_BY_MONAI]).endswith(ARRAY_SUFFIXES):
        return HWD
    operations = sample.applied_operations
    sizes = operations[0].get("orig_size") if operations else tuple(sample.shape[1:])
    stored = sample.meta.get("spatial_shape")
    if sizes is None or stored is None:
        return None
    now, then = [int(side) for side in sizes], np.asarray(stored).ravel().astype(int).tolist()[: len(sizes)]
    if _READ_BY_NIBABEL in sample.meta:
        return XYZ if now == then and len(now) == n else None
    fitting = [order for order in (XYZ[:n], XYZ[:n][::-1]) if now == [then[i] for i in order if i < len(then)]]
    return fitting[0] if len(fitting) == 1 else None


def _turned(sample: MetaTensor, space: Sequence[int], n: int) -> tuple[Sequence[int], Sequence[bool]] | None:
    """Return the axis of space along each present axis, and which run backward, after transforms that turned them.

    None where the affine matrix does not say so, as that of a coronal slice does not for its two axes. The stylizer's
    space is ITK's (x to the left, y to the back, z to the head of the patient) for scans, and the file's own for
    pictures and arrays.
    """
    matrix = sample.affine.detach().cpu().numpy().astype(np.float64)
    matrix = (matrix[0] if matrix.ndim == 3 else matrix)[:n, :n]
    lengths = np.linalg.norm(matrix, axis=0)
    if matrix.shape != (n, n) or not np.isfinite(matrix).all() or (lengths == 0).any():
        return None
    matrix = matrix / lengths
    if "original_affine" in sample.meta and str(sample.meta.get("space", "RAS")).endswith("RAS"):
        matrix = np.diag([-1.0, -1.0, 1.0])[:n, :n] @ matrix
    present, backward = nearest_axes(matrix)
    return [space[axis] for axis in present], backward


def _spacing(sample: MetaTensor | None) -> list[float] | None:
    """Of the three spatial axes of a sample, from the affine matrix; None without one."""
    if sample is None or sample.affine.shape[-1] != 4:
        return None
    affine = sample.affine[0] if sample.affine.ndim == 3 else sample.affine
    return [float(value) for value in affine_to_spacing(affine, r=3)]
