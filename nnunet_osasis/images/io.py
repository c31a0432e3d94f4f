"""Images and volumes in and out: the suffix chooses the format, the format's module reads and writes it."""

from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.headers import check_size, check_volume_file, refuse
from nnunet_osasis.images.image import (
    NATURAL_SUFFIXES,
    SUFFIXES,
    TIFF_SUFFIXES,
    Geometry,
    LoadedImage,
    check_array,
    image_suffix,
    is_file,
    to_dtype,
)
from nnunet_osasis.images.nifti import NIFTI_SUFFIXES, read_nifti, write_nifti
from nnunet_osasis.images.pictures import read_picture, write_picture
from nnunet_osasis.images.tiff import read_tiff, spacing_file, write_tiff
from nnunet_osasis.images.volumes import READERS, read_volume, write_volume
from nnunet_osasis.runtime.storage import atomic_write

logger = logging.getLogger(__name__)

UNREAD = (".hdr", ".img", ".dcm", ".dicom", ".ima", ".gif", ".webp", ".jp2", ".svs", ".czi", ".lif", ".nd2", ".mgz")
"""Suffixes of images in formats that are not read; a warning names them when a folder holds some."""


def list_images(folder: str | Path) -> list[Path]:
    """Return the readable image files of ``folder``, by name.

    Raises:
        OsasisError: the folder is missing or holds no image, or a file's name is no text.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OsasisError("The image folder must exist", found=f"no folder {folder}", remedy="Check the path.")
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    paths = [path for path in entries if image_suffix(path) and path.is_file()]
    if not paths:
        raise OsasisError(
            "The image folder must hold images",
            found=f"none in {folder}",
            remedy=f"Readable formats: {', '.join(SUFFIXES)}.",
        )
    if unread := [path.name for path in entries if path.suffix.lower() in UNREAD]:
        logger.warning(
            "Warning: %d files in %s are of formats that are not read, such as %s. Convert them to PNG or NIfTI.",
            len(unread), folder, unread[0],
        )  # fmt: skip
    if odd := [path for path in paths if not path.name.isprintable() and _is_bytes(path.name)]:
        raise OsasisError(
            "File names must be text in UTF-8", found=f"{odd[0].name!r} in {folder}", remedy="Rename the file."
        )
    return paths


def _is_bytes(name: str) -> bool:
    """Tell whether Python had to escape bytes of a file name: tables and pictures cannot show it."""
    return any("\udc80" <= letter <= "\udcff" for letter in name)


def files_of(path: str | Path) -> tuple[Path, ...]:
    """Return the files an image is stored in: itself, the one that a MetaImage or NRRD header names, nnU-Net's spacing.

    Raises:
        OsasisError: a volume's header is damaged or names a file elsewhere.
    """
    path = Path(path)
    if image_suffix(path) in TIFF_SUFFIXES:
        beside = spacing_file(path)
        return (path,) if beside is None else (path, beside)
    return check_volume_file(path) if image_suffix(path) in READERS else (path,)


def read_image(path: str | Path) -> LoadedImage:
    """Read one image or volume; pictures upright, whatever their orientation tag says.

    Raises:
        OsasisError: the file is missing, truncated, of another format than its name says (PNG, JPEG and BMP are told
            apart by content), of more values than allowed (``headers.MAX_VALUES``), of more than three spatial axes,
            or it holds NaN or infinity.
    """
    path = Path(path)
    suffix = image_suffix(path)
    if not is_file(path):
        raise OsasisError("The image must exist", found=f"no file {path}", remedy="Check the path.")
    if not suffix:
        raise OsasisError(
            "The image format must be known", found=path.name, remedy=f"Use one of {', '.join(SUFFIXES)}."
        )
    geometry: Geometry | None = None
    kept: dict[str, Any] = {}
    try:
        if suffix in NATURAL_SUFFIXES:
            array, kept = read_picture(path)
        elif suffix in TIFF_SUFFIXES:
            array, geometry, kept = read_tiff(path)
        elif suffix in NIFTI_SUFFIXES:
            array, geometry, kept = read_nifti(path, suffix)
        else:
            array, geometry, kept = read_volume(path, suffix)
    except OsasisError:
        raise
    except Exception as error:  # decoders raise whatever their libraries do: struct.error, zlib.error, OverflowError
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise refuse(path, reason) from error
    check_size(array.shape or (0,), path)
    if geometry is not None and not np.isfinite([*geometry.spacing, *geometry.origin, *geometry.direction]).all():
        raise OsasisError("A volume's geometry must be finite", found=f"another in {path}", remedy="Repair the header.")
    check_array(array, name=str(path))
    return LoadedImage(array, path, geometry, kept)


def write_like(loaded: LoadedImage, array: np.ndarray, path: str | Path) -> Path:
    """Write ``array`` with the dtype, geometry, header and color profile of ``loaded``, atomically; return ``path``.

    Args:
        loaded: the image that ``array`` was made from.
        array: the result, in the shape of ``loaded.array``; integers are rounded and clipped.
        path: its suffix chooses the format. Callers choose PNG for JPEG, as lossy re-encoding changes structure.

    Raises:
        OsasisError: another shape, a full disk, a folder that cannot be written.
    """
    if array.shape != loaded.array.shape:
        raise OsasisError("The result must have its source's shape", found=f"{array.shape} for {loaded.array.shape}")
    array = array if array.dtype == loaded.array.dtype else to_dtype(array, loaded.array.dtype)
    suffix = image_suffix(path)

    def write(temporary: Path) -> None:
        if suffix in READERS:
            write_volume(loaded, array, temporary)
        elif suffix in NIFTI_SUFFIXES:
            write_nifti(loaded, array, temporary)
        elif suffix in TIFF_SUFFIXES:
            write_tiff(array, temporary, loaded.kept if image_suffix(loaded.path) in TIFF_SUFFIXES else {})
        else:
            write_picture(array, temporary, loaded.kept)

    beside = spacing_file(loaded.path) if {suffix, image_suffix(loaded.path)} <= set(TIFF_SUFFIXES) else None
    if beside is not None:
        atomic_write(Path(path).with_name(beside.name), partial(shutil.copyfile, beside))
    return atomic_write(path, write)
