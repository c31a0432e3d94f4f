"""Volumes as stacks of slices: the axis to cut along, and how axes are ordered.

Arrays are ``(C, Z, Y, X)`` as SimpleITK and nnU-Net read them; a stylizer cuts along the first spatial axis. It sees
every scan the same way round, with x to the left, y to the back and z to the head of the patient (ITK's identity),
however the file stores it: networks and maps with a slope across the picture take it for what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import Geometry, LoadedImage
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


@dataclass(frozen=True)
class Cut:
    """How the stored axes (0, 1, 2 of ``(Z, Y, X)``) of a volume become those that a stylizer sees.

    Attributes:
        axes: the stored axes in the order slices, rows, columns.
        flips: the stored axes that run backward.
    """

    axes: tuple[int, ...] = (0, 1, 2)
    flips: tuple[int, ...] = ()

    @classmethod
    def along(cls, axis: int) -> Cut:
        """Make the cut along one axis, the other two in their order."""
        return cls((axis, *(other for other in range(3) if other != axis)))


def nearest_axes(matrix: np.ndarray) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Return which axis of space each column ``(n, n)`` of a direction matrix lies nearest to, and if it runs backward.

    >>> nearest_axes(np.array([[0.1, 1.0], [-1.0, 0.2]]))
    ((1, 0), (True, False))
    """
    columns = range(len(matrix))
    best = max(permutations(columns), key=lambda order: sum(abs(matrix[order[i], i]) for i in columns))
    return best, tuple(bool(matrix[best[i], i] < 0) for i in columns)


def cut_for(geometry: Geometry | None, shape: Sequence[int]) -> Cut:
    """Choose the cut of an image ``(H, W)`` or a volume ``(Z, Y, X)`` that lies in space as its geometry says.

    Slices are stacked along :func:`slice_axis`. Raises ``OsasisError`` as that does.
    """
    sides = tuple(shape) if len(shape) == 3 else (1, *shape)
    direction, spacing = np.eye(3), None
    if geometry is not None:
        n = len(geometry.spacing)
        direction[: min(n, 3), : min(n, 3)] = np.reshape(geometry.direction, (n, n))[:3, :3]
        spacing = (*geometry.spacing, 1.0)[:3][::-1]
    space, backward = nearest_axes(direction)  # x first
    order = [2 - space.index(axis) for axis in (2, 1, 0)]
    if len(shape) == 2:
        front = order.index(0)
    else:
        stored = None if spacing is None or len(geometry.spacing) < 3 else [spacing[axis] for axis in order]  # type: ignore[union-attr]
        front = slice_axis(stored, [sides[axis] for axis in order])
    axes = (order[front], *(axis for axis in order if axis != order[front]))
    return Cut(axes, tuple(sorted(2 - i for i, flipped in enumerate(backward) if flipped)))


def cut_of(loaded: LoadedImage) -> Cut:
    """Choose the cut of an image or volume as it was read."""
    return cut_for(loaded.geometry, loaded.array.shape[1:])


def slices_first(array: np.ndarray, cut: int | Cut) -> np.ndarray:
    """Arrange ``(C, Z, Y, X)``, or an image ``(C, H, W)``, as a stylizer sees it, slices first.

    A view where no axis runs backward. A number cuts a volume along that axis.
    """
    cut = Cut.along(cut) if isinstance(cut, int) and array.ndim == 4 else cut
    if isinstance(cut, int) or cut == Cut():
        return array
    volume = array if array.ndim == 4 else array[:, None]
    if cut.flips:
        volume = np.flip(volume, tuple(axis + 1 for axis in cut.flips))
    moved = volume.transpose(0, *(axis + 1 for axis in cut.axes))
    moved = np.ascontiguousarray(moved) if cut.flips else moved
    return moved if array.ndim == 4 else moved[:, 0]


def slices_back(array: np.ndarray, cut: int | Cut) -> np.ndarray:
    """Undo :func:`slices_first` (a view)."""
    cut = Cut.along(cut) if isinstance(cut, int) and array.ndim == 4 else cut
    if isinstance(cut, int) or cut == Cut():
        return array
    volume = array if array.ndim == 4 else array[:, None]
    moved = volume.transpose(0, *(cut.axes.index(axis) + 1 for axis in range(3)))
    moved = np.flip(moved, tuple(axis + 1 for axis in cut.flips))
    return moved if array.ndim == 4 else moved[:, 0]


def read_in_slices(path: str | Path) -> np.ndarray:
    """Read ``(C, H, W)``, or ``(C, D, H, W)`` with the axis to cut along in front, as a stylizer sees it."""
    loaded = read_image(path)
    return slices_first(loaded.array, cut_of(loaded))


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
