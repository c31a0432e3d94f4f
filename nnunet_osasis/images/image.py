"""One image in memory: its pixels, its geometry, and the rules that arrays and file names follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_osasis.errors import OsasisError

NATURAL_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")

TIFF_SUFFIXES = (".tif", ".tiff")

VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")

SUFFIXES = NATURAL_SUFFIXES + TIFF_SUFFIXES + VOLUME_SUFFIXES

GRID_TOLERANCE = 0.1
"""Distance, in voxels, up to which two voxels count as one place; headers round."""


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a medical image lie, as SimpleITK names it: two to four axes in the order x, y, z, time.

    >>> Geometry.of([0.5, 0.5, 3], [0, 0, 0], np.eye(3)).spacing
    (0.5, 0.5, 3.0)

    Attributes:
        spacing: distance between voxels along each axis, in millimeters.
        origin: position of the first voxel, in millimeters (left, posterior, superior).
        direction: direction cosines of the axes, row by row.
    """

    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, spacing: Iterable[float], origin: Iterable[float], direction: npt.ArrayLike) -> Geometry:
        """Make one of any numbers."""
        return cls(tuple(map(float, spacing)), tuple(map(float, origin)), tuple(np.ravel(direction).tolist()))

    def __str__(self) -> str:
        parts = (("spacing", self.spacing), ("origin", self.origin), ("direction", self.direction))
        return ", ".join(f"{name} ({' '.join(f'{number:g}' for number in numbers)})" for name, numbers in parts)

    @property
    def is_placed(self) -> bool:
        """Whether it differs from what libraries write by default: spacing 1, origin 0, the identity."""
        return (
            any(self.origin)
            or {*self.spacing} != {1.0}
            or self.direction != tuple(np.eye(len(self.spacing)).ravel().tolist())
        )

    def affine(self) -> np.ndarray:
        """Return the matrix ``(4, 4)`` from voxel indices (x, y, z, 1) to millimeters."""
        axes, matrix = len(self.spacing), np.eye(4)
        n = min(axes, 3)
        matrix[:n, :n] = np.reshape(self.direction, (axes, axes))[:n, :n] * self.spacing[:n]
        matrix[:n, 3] = self.origin[:n]
        return matrix


@dataclass(frozen=True)
class LoadedImage:
    """One image or volume as stored.

    Attributes:
        array: ``(C, H, W)`` or, for a volume of more than one slice, ``(C, D, H, W)``; the file's own dtype and units.
        path: the file.
        geometry: where the voxels lie; None for formats that do not say.
        kept: what the format's own writer puts back: color profile and resolution of pictures, header of volumes.
    """

    array: np.ndarray
    path: Path
    geometry: Geometry | None = field(default=None, compare=False, repr=False)
    kept: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Spacing of the spatial axes ``(D, H, W)``, in millimeters; None for images and files that state none."""
        if self.geometry is None or self.array.ndim != 4:
            return None
        x, y, z = self.geometry.spacing[:3]
        return z, y, x


def onto_grid(mask: LoadedImage, image: LoadedImage, *, what: tuple[str, str] = ("Image", "mask")) -> np.ndarray:
    """Return the array of ``mask`` in the voxel order of ``image``.

    Tools store one volume in several orders (RAS, LPS): axes are flipped and swapped until voxels of one index lie in
    one place. Where that cannot be because a geometry is missing, or is the default that libraries write, the mask is
    returned as stored.

    Raises:
        OsasisError: the voxels of the two lie in different places.
    """
    order = voxel_order(image.geometry, image.array.shape[1:], mask.geometry, mask.array.shape[1:])
    if order is None:
        require_unplaced(image.geometry, mask.geometry, mask.path, what)
        return mask.array
    volume = mask.array if mask.array.ndim == 4 else mask.array[:, None]
    values = volume.transpose(0, *(3 - order.axes[::-1]))
    values = np.flip(values, tuple(3 - axis for axis in order.flips))
    return values[:, 0] if image.array.ndim == 3 else values


def require_unplaced(ours: Geometry | None, theirs: Geometry | None, path: Path, what: tuple[str, str]) -> None:
    """Refuse two geometries that both say where voxels lie; called for those that do not fit each other."""
    if ours is not None and theirs is not None and ours.is_placed and theirs.is_placed:
        raise OsasisError(
            f"{what[0]} and {what[1]} must have the same geometry",
            found=f"{ours}, but {theirs} in {path}",
            remedy=f"Resample the {what[1]} to the {what[0].lower()}'s grid with nearest-neighbor interpolation.",
        )


@dataclass(frozen=True)
class VoxelOrder:
    """How one image's voxels are brought into the order of another's.

    Attributes:
        axes: the axis of the one that lies along each axis of the other, x first.
        flips: axes of the other, x first, along which the one runs backward.
    """

    axes: np.ndarray
    flips: tuple[int, ...]


def voxel_order(
    ours: Geometry | None, shape: tuple[int, ...], theirs: Geometry | None, their_shape: tuple[int, ...]
) -> VoxelOrder | None:
    """Return how voxels of a grid ``theirs`` are ordered as those of ``ours``; None where they lie elsewhere."""
    if ours is None or theirs is None:
        return None
    sides, mask_sides = _sides(shape), _sides(their_shape)
    to_mask = np.linalg.pinv(theirs.affine()) @ ours.affine()  # voxel indices of the image to those of the mask
    turn = np.rint(to_mask[:3, :3])
    corners = np.array(list(np.ndindex(2, 2, 2))).T * (sides[:, None] - 1)
    places = to_mask[:3, :3] @ corners + to_mask[:3, 3:]
    mask_corners = np.rint(places)
    one_to_one = (np.abs(turn).sum(axis=0) == 1).all() and (np.abs(turn).sum(axis=1) == 1).all()
    fills_mask = (mask_corners.min(axis=1) == 0).all() and (mask_corners.max(axis=1) == mask_sides - 1).all()
    if not (one_to_one and fills_mask and np.abs(places - mask_corners).max() < GRID_TOLERANCE):
        return None
    order = np.abs(turn).argmax(axis=0)
    return VoxelOrder(order, tuple(axis for axis in range(3) if turn[order[axis], axis] < 0))


def _sides(shape: tuple[int, ...]) -> np.ndarray:
    """Return the sides along x, y and z of ``(H, W)`` or ``(D, H, W)``."""
    return np.array([*reversed(shape), 1][:3])


def image_suffix(path: str | Path) -> str:
    """Return the suffix that decides the format, lower case (``.nii.gz`` is one), or ``""`` for other formats."""
    name = Path(path).name.lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")


def image_stem(path: str | Path) -> str:
    """Return the file's name without its image suffix."""
    return Path(path).name[: -len(image_suffix(path)) or None]


def is_file(path: Path) -> bool:
    """Tell whether a path is a plain file that can be looked at; pipes, devices and impossible names are none."""
    try:
        return path.is_file()
    except OSError:  # a name too long, a folder that may not be entered
        return False


def check_array(array: np.ndarray, *, name: str = "the image", channels: int | None = None) -> None:
    """Refuse what no stylizer can use.

    Args:
        array: any value.
        name: how messages name it.
        channels: the number of channels it must have.

    Raises:
        OsasisError: no array of numbers, axes other than ``(C, H, W)`` or ``(C, D, H, W)``, an empty one, NaN or
            infinity, another number of channels.
    """
    if not isinstance(array, np.ndarray):
        raise OsasisError(f"{name} must be an array", found=type(array).__name__, remedy="Read it with read_image.")
    if isinstance(array, np.ma.MaskedArray):  # its masked values would escape the clip to a range
        raise OsasisError(f"{name} must be a plain array", found="a masked one", remedy="Use array.filled(value).")
    if array.ndim not in (3, 4):
        raise OsasisError(
            f"{name} must have the axes (C, H, W) or (C, D, H, W)",
            found=f"shape {array.shape}",
            remedy="Split time series and stacks of more axes first.",
        )
    if array.size == 0 or array.dtype.kind not in "uifb":
        raise OsasisError(f"{name} must hold numbers", found=f"shape {array.shape}, dtype {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise OsasisError(f"{name} must be finite", found=f"{bad} NaN or infinite values", remedy="Repair or drop it.")
    if channels is not None and array.shape[0] != channels:
        kind = {1: "grayscale", 3: "color"}
        raise OsasisError(
            f"{name} must have {channels} channel(s) ({kind.get(channels, 'as the stylizer')})",
            found=f"{array.shape[0]} ({kind.get(array.shape[0], 'other')})",
            remedy="Convert it, or use a stylizer made for images of that kind."
            + (" Gray that is stored as RGB: --gray makes it one channel." if {channels, len(array)} == {1, 3} else ""),
        )


def to_dtype(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Cast to a file's dtype, always a copy; integers are rounded and clipped to their range."""
    if array.dtype == dtype:
        return array.copy()
    if np.issubdtype(dtype, np.integer):
        limits, whole = np.iinfo(dtype), np.rint(array)
        if np.dtype(dtype).itemsize < 4:
            return np.clip(whole, limits.min, limits.max).astype(dtype)
        # a limit of 32 or 64 bits may be no float: it would be rounded up to a value that does not fit
        over, under = whole >= limits.max, whole <= limits.min
        cast = np.where(over | under, 0, whole).astype(dtype)
        return np.where(over, dtype.type(limits.max), np.where(under, dtype.type(limits.min), cast))
    return array.astype(dtype)
