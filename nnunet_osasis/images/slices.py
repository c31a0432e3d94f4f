"""Volumes as stacks of slices: which axis is cut along, and how axes are named.

Arrays are ``(C, Z, Y, X)`` as SimpleITK and nnU-Net read them; a stylizer cuts along the first spatial axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.io import read_image

ANISOTROPIC = 1.05
"""An axis counts as the coarsest when its spacing is this much larger than every other: rounding in headers is not
anisotropy."""


def slice_axis(spacing: Sequence[float] | None, shape: Sequence[int] = ()) -> int:
    """The spatial axis (0, 1 or 2 of ``(Z, Y, X)``) that slices are stacked along.

    An only axis of length 1 is that axis: what is left of it is one image. Else it is the axis of the largest spacing,
    so that slices are as sharp as the scan allows; the first one where spacing is missing or isotropic. nnU-Net's
    planner moves the same axis to the front.

    >>> slice_axis((1.0, 1.0, 5.0)), slice_axis((1.0, 1.0, 1.0)), slice_axis(None, (30, 30, 1))
    (2, 0, 2)

    Raises ``OsasisError`` unless spacings are three positive numbers.
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
    """``(C, Z, Y, X)`` with the spatial ``axis`` moved to the front, the other two in their order (a view).

    An image ``(C, H, W)`` is returned as it is.
    """
    return np.moveaxis(array, axis + 1, 1) if array.ndim == 4 else array


def slices_back(array: np.ndarray, axis: int) -> np.ndarray:
    """Undo :func:`slices_first` (a view)."""
    return np.moveaxis(array, 1, axis + 1) if array.ndim == 4 else array


def read_in_slices(path: str | Path) -> np.ndarray:
    """``(C, H, W)``, or ``(C, D, H, W)`` with the axis to cut along in front."""
    loaded = read_image(path)
    return slices_first(loaded.array, slice_axis(loaded.spacing, loaded.array.shape[1:]))


def slices_of(array: np.ndarray) -> list[np.ndarray]:
    return [array] if array.ndim == 3 else [array[:, i] for i in range(array.shape[1])]


def best_slice(array: np.ndarray) -> np.ndarray:
    """``(C, H, W)`` of an image, or of a volume the slice with the largest standard deviation."""
    return max(slices_of(array), key=lambda s: float(s.std()))


def evenly_spaced(sources: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` images spread evenly_spaced over a set."""
    return sources[np.unique(np.linspace(0, len(sources) - 1, count).round().astype(int))]
