"""Images and volumes in and out, through Pillow, tifffile and SimpleITK, with their geometry kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.image_limits import check_size
from nnunet_osasis.picture_io import read_picture, write_picture
from nnunet_osasis.runtime.storage import atomic_write
from nnunet_osasis.tiff_io import read_tiff, write_tiff
from nnunet_osasis.volume_header import check_volume_file
from nnunet_osasis.volume_io import read_volume, write_volume

NATURAL_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
TIFF_SUFFIXES = (".tif", ".tiff")
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
SUFFIXES = NATURAL_SUFFIXES + TIFF_SUFFIXES + VOLUME_SUFFIXES


@dataclass(frozen=True)
class LoadedImage:
    """One image or volume as stored.

    Attributes:
        array: ``(C, H, W)`` or, for a volume of more than one slice, ``(C, D, H, W)``; the file's own dtype and units.
        path: where it came from.
        geometry: spacing, origin and direction of medical formats (SimpleITK's), else None.
        kept: colour profile and resolution of pictures, header of NIfTI files, for the format's own writer.
    """

    array: np.ndarray
    path: Path
    geometry: Any = field(default=None, compare=False, repr=False)
    kept: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Spacing of ``array``'s spatial axes ``(D, H, W)``; None where the file has none or is no volume."""
        if self.geometry is None or self.array.ndim != 4:
            return None
        x, y, z = self.geometry.GetSpacing()[:3]
        return z, y, x


def image_suffix(path: str | Path) -> str:
    """The suffix that decides the format, lower case (``.nii.gz`` counts as one), or ``""`` if it is none of ours."""
    name = Path(path).name.lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")


def image_stem(path: str | Path) -> str:
    """The file's name without its image suffix."""
    return Path(path).name[: -len(image_suffix(path)) or None]


def list_images(folder: str | Path) -> list[Path]:
    """The readable image files of ``folder``, by name.

    Raises ``OsasisError`` when it is missing or holds none, and for names that are no text.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OsasisError("The image folder must exist", found=f"no folder {folder}", remedy="Check the path.")
    found = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and image_suffix(p))
    if not found:
        raise OsasisError(
            "The image folder must hold images",
            found=f"none in {folder}",
            remedy=f"Readable formats: {', '.join(SUFFIXES)}.",
        )
    if odd := [path for path in found if not path.name.isprintable() and _is_bytes(path.name)]:
        raise OsasisError(
            "File names must be text in UTF-8", found=f"{odd[0].name!r} in {folder}", remedy="Rename the file."
        )
    return found


def _is_bytes(name: str) -> bool:
    """Whether Python had to escape bytes of a file name: tables and pictures cannot show it."""
    return any("\udc80" <= letter <= "\udcff" for letter in name)


def files_of(path: str | Path) -> tuple[Path, ...]:
    """The files an image is stored in: itself, and the one a MetaImage or NRRD header names.

    Raises ``OsasisError`` for a volume whose header is damaged or names a file elsewhere.
    """
    path = Path(path)
    return check_volume_file(path) if image_suffix(path) in (".mha", ".mhd", ".nrrd") else (path,)


def read_image(path: str | Path) -> LoadedImage:
    """Read one image or volume; pictures upright, whatever their orientation tag says.

    Raises:
        OsasisError: the file is missing, truncated, of another format than its name says (PNG, JPEG and BMP are told
            by their content), of more values than allowed (``image_limits``), of more than three spatial axes, or it
            holds NaN or infinity.
    """
    path = Path(path)
    suffix = image_suffix(path)
    if not is_file(path):
        raise OsasisError("The image must exist", found=f"no file {path}", remedy="Check the path.")
    if not suffix:
        raise OsasisError(
            "The image format must be known", found=path.name, remedy=f"Use one of {', '.join(SUFFIXES)}."
        )
    geometry: Any = None
    kept: dict[str, Any] = {}
    try:
        if suffix in NATURAL_SUFFIXES:
            array, kept = read_picture(path)
        elif suffix in TIFF_SUFFIXES:
            array, kept = read_tiff(path)
        else:
            array, geometry, kept = read_volume(path, suffix)
    except OsasisError:
        raise
    except Exception as error:  # decoders raise whatever their libraries do: struct.error, zlib.error, OverflowError
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise OsasisError(
            "The image must be readable", found=f"{path}: {reason}", remedy="Replace the file or leave it out."
        ) from error
    check_size(array.shape or (0,), path)
    check_array(array, name=str(path))
    return LoadedImage(array, path, geometry, kept)


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


def write_like(loaded: LoadedImage, array: np.ndarray, path: str | Path) -> Path:
    """Write ``array`` (axes as ``loaded.array``) with the dtype, geometry and colour profile of ``loaded``, atomically.

    The suffix of ``path`` decides the format; JPEG becomes PNG by the caller's choice of ``path``, as lossy
    re-encoding would change structure.
    """
    if array.shape != loaded.array.shape:
        raise OsasisError("The result must have its source's shape", found=f"{array.shape} for {loaded.array.shape}")
    array = to_dtype(array, loaded.array.dtype)
    suffix = image_suffix(path)

    def write(temporary: Path) -> None:
        if suffix in VOLUME_SUFFIXES:
            write_volume(loaded, array, temporary)
        elif suffix in TIFF_SUFFIXES:
            write_tiff(array, temporary, loaded.kept if image_suffix(loaded.path) in TIFF_SUFFIXES else {})
        else:
            write_picture(array, temporary, loaded.kept)

    return atomic_write(path, write)
