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
        """Spacing of ``array``'s spatial axes ``(D, H, W)``; None where the file has none or is no volume."""
        if self.geometry is None or self.array.ndim != 4:
            return None
        x, y, z = self.geometry.spacing[:3]
        return z, y, x


def image_suffix(path: str | Path) -> str:
    """The suffix that decides the format, lower case (``.nii.gz`` counts as one), or ``""`` if it is none of ours."""
    name = Path(path).name.lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")


def image_stem(path: str | Path) -> str:
    """The file's name without its image suffix."""
    return Path(path).name[: -len(image_suffix(path)) or None]


def is_file(path: Path) -> bool:
    """Whether a path is a plain file that can be looked at; pipes, devices and impossible names are none."""
    try:
        return path.is_file()
    except OSError:  # a name too long, a folder that may not be entered
        return False


def check_array(array: np.ndarray, *, name: str = "the image", channels: int | None = None) -> None:
    """Refuse what no stylizer can use: rank other than ``(C, H, W)``/``(C, D, H, W)``, emptiness, NaN, infinity.

    Raises ``OsasisError``; with ``channels`` also when the channel count differs.
    """
    if not isinstance(array, np.ndarray):
        raise OsasisError(f"{name} must be an array", found=type(array).__name__, remedy="Read it with read_image.")
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
        kind = {1: "grayscale", 3: "colour"}
        raise OsasisError(
            f"{name} must have {channels} channel(s) ({kind.get(channels, 'as the stylizer')})",
            found=f"{array.shape[0]} ({kind.get(array.shape[0], 'other')})",
            remedy="Convert it, or use a stylizer made for images of that kind.",
        )


def to_dtype(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Back to a file's dtype: integers are rounded and clipped to their range, floats cast."""
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return np.clip(np.rint(array), limits.min, limits.max).astype(dtype)
    return array.astype(dtype)
