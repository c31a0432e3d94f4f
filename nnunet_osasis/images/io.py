"""Images and volumes in and out, through Pillow, tifffile and SimpleITK, with their geometry kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.headers import check_size, check_volume_file
from nnunet_osasis.images.image import (
    NATURAL_SUFFIXES,
    SUFFIXES,
    TIFF_SUFFIXES,
    VOLUME_SUFFIXES,
    LoadedImage,
    check_array,
    image_suffix,
    is_file,
    to_dtype,
)
from nnunet_osasis.images.pictures import read_picture, write_picture
from nnunet_osasis.images.tiff import read_tiff, write_tiff
from nnunet_osasis.images.volumes import read_volume, write_volume
from nnunet_osasis.runtime.storage import atomic_write


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
