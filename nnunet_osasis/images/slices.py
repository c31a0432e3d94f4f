"""Volumes as stacks of slices: the axis to cut along, and how axes are ordered.

Arrays are ``(C, Z, Y, X)`` as SimpleITK and nnU-Net read them; a stylizer cuts along the first spatial axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.io import read_image

ANISOTROPIC = 1.05
"""Ratio of spacings above which an axis counts as coarser than another; less is rounding in headers."""


def slice_axis(spacing: Sequence[float] | None, shape: Sequence[int] = ()) -> int:
    """Return the spatial axis (0, 1 or 2 of ``(Z, Y, X)``) that slices are stacked along.

    An only axis of length 1 is that axis: what is left is one image. Else it is the axis of the largest spacing, so
    that slices are as sharp as the scan allows; the first axis where spacing is missing or isotropic. nnU-Net's
    planner moves the same axis to the front.

    >>> slice_axis((1.0, 1.0, 5.0)), slice_axis((1.0, 1.0, 1.0)), slice_axis(None, (30, 30, 1))
    (2, 0, 2)

    Raises:
        OsasisError: spacings are not three positive numbers.
    """
    if list(shape).count(1) == 1:
        return list(shape).index(1)
    if spacing is None:
        return 0
    values = np.asarray(spacing, dtype=np.float64)
    if values.shape != (3,) or not np.isfinite(values).all() or (values <= 0).any():
        raise OsasisError(
            "A volume's spacing must be three positive numbers", found=tuple(spacing), remedy="Repair the header."
        )
    coarsest = int(values.argmax())
    return coarsest if values[coarsest] > ANISOTROPIC * np.delete(values, coarsest).max() else 0


def slices_first(array: np.ndarray, axis: int) -> np.ndarray:
    """Move the spatial ``axis`` of ``(C, Z, Y, X)`` to the front, the other two in their order (a view).

    An image ``(C, H, W)`` is returned as it is.
    """
    return np.moveaxis(array, axis + 1, 1) if array.ndim == 4 else array


def slices_back(array: np.ndarray, axis: int) -> np.ndarray:
    """Undo :func:`slices_first` (a view)."""
    return np.moveaxis(array, 1, axis + 1) if array.ndim == 4 else array


def read_in_slices(path: str | Path) -> np.ndarray:
    """Read ``(C, H, W)``, or ``(C, D, H, W)`` with the axis to cut along in front."""
    loaded = read_image(path)
    return slices_first(loaded.array, slice_axis(loaded.spacing, loaded.array.shape[1:]))


def slices_of(array: np.ndarray) -> list[np.ndarray]:
    """Return the images ``(C, H, W)`` that an array ``(C, H, W)`` or ``(C, D, H, W)`` holds (views)."""
    return [array] if array.ndim == 3 else [array[:, i] for i in range(array.shape[1])]


def best_slice(array: np.ndarray) -> np.ndarray:
    """Return the image itself, or of a volume the slice ``(C, H, W)`` with the largest standard deviation."""
    return max(slices_of(array), key=lambda image: float(image.std()))


def evenly_spaced(n: int, count: int) -> list[int]:
    """Return at most ``count`` different indices below ``n``, evenly spread, the first and the last among them.

    >>> evenly_spaced(9, 3), evenly_spaced(2, 5)
    ([0, 4, 8], [0, 1])
    """
    return np.unique(np.linspace(0, n - 1, count).round().astype(int)).tolist()
