"""Volumes (NIfTI, MetaImage, NRRD) in and out, through SimpleITK, with their geometry kept.

NIfTI headers, field by field: SimpleITK keeps where voxels lie, and drops or rewrites most of the rest.

Its files always say "scanner coordinates" (``sform_code`` and ``qform_code`` 1), whatever the source said, and lose
units of further axes, display range, intent and slice timing.
"""

from __future__ import annotations

import gzip
import os
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.headers import GZIP, check_size, check_volume_file

if TYPE_CHECKING:
    from nnunet_osasis.images.image import LoadedImage

READERS = {
    ".nii": "NiftiImageIO",
    ".nii.gz": "NiftiImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
    ".nrrd": "NrrdImageIO",
}
"""Formats are read by their own reader only: SimpleITK would also take a picture or a DICOM file of that name."""

NIFTI = "nifti_header"


def read_volume(path: Path, suffix: str) -> tuple[np.ndarray, Any, dict[str, Any]]:
    """``(C, H, W)`` or ``(C, D, H, W)`` as stored, SimpleITK's image with the geometry, and a NIfTI file's header.

    A fourth axis (time, or channels of NIfTI) becomes the channels. Raises ``OsasisError`` for what
    ``check_volume_file`` refuses and for a geometry that is not finite; else what SimpleITK raises.
    """
    import SimpleITK as sitk

    check_volume_file(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(READERS[suffix])
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    check_size([*reader.GetSize(), reader.GetNumberOfComponents()], path)
    image = reader.Execute()
    if not np.isfinite([*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection()]).all():
        raise OsasisError("A volume's geometry must be finite", found=f"another in {path}", remedy="Repair the header.")
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif image.GetDimension() < 4:
        array = array[None]
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    return np.ascontiguousarray(array), image, _kept(path, suffix)


def _kept(path: Path, suffix: str) -> dict[str, Any]:
    if suffix not in (".nii", ".nii.gz"):
        return {}
    with gzip.open(path) if suffix == ".nii.gz" and _is_gzip(path) else open(path, "rb") as stream:
        return {NIFTI: stream.read(SIZE)}


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(2) == GZIP


def write_volume(loaded: LoadedImage, array: np.ndarray, path: Path) -> None:
    """Write ``array`` with the geometry and header entries of ``loaded``, and check that the file is whole.

    An ``.mhd`` file is written with its voxels inside (``ElementDataFile = LOCAL``): one file can be replaced at once,
    a pair cannot. Raises ``OSError`` when SimpleITK cannot write.
    """
    import SimpleITK as sitk

    name = path.name.lower()
    # SimpleITK makes the second file of a pair by the name it is given, which is a temporary one
    place = path.with_name(f"{path.name}.mha") if name.endswith(".mhd") else path
    if name.endswith(".gz"):  # the header is changed before packing
        place = path.with_name(path.name[: -len(".gz")])
    try:
        sitk.WriteImage(_as_image(loaded, array), str(place))
        if place.suffix == ".nii" and NIFTI in loaded.kept:
            copy_fields(loaded.kept[NIFTI], place)
        if name.endswith(".gz"):
            with open(place, "rb") as plain, open(path, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, 0) as packed:
                shutil.copyfileobj(plain, packed, 2**20)
        elif place != path:
            os.replace(place, path)
        check_volume_file(path)  # on a full disk SimpleITK writes half a file and says nothing
    except RuntimeError as error:
        raise OSError(None, str(error).strip().splitlines()[-1], str(path)) from error
    finally:
        if place != path:
            place.unlink(missing_ok=True)


def _as_image(loaded: LoadedImage, array: np.ndarray) -> Any:
    import SimpleITK as sitk

    source = loaded.geometry
    if source is None:
        return sitk.GetImageFromArray(array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1))
    dimension, vector = source.GetDimension(), source.GetNumberOfComponentsPerPixel() > 1
    slices = array[:, None] if array.ndim == 3 and dimension >= 3 else array
    values = np.moveaxis(slices, 0, -1) if vector else (slices if dimension == 4 else slices[0])
    image = sitk.GetImageFromArray(values, isVector=vector)
    image.CopyInformation(source)
    for key in source.GetMetaDataKeys():
        value = source.GetMetaData(key)
        if "UNKNOWN_PRINT_CHARACTERISTICS" not in value:  # SimpleITK's own notes, not the file's
            image.SetMetaData(key, value)
    return image


SIZE = 348

FIELDS = {
    "regular": (38, "c"), "dim_info": (39, "B"), "intent_p": (56, "3f"), "intent_code": (68, "h"),
    "slice_start": (74, "h"), "pixdim": (76, "8f"), "slice_end": (120, "h"), "slice_code": (122, "B"),
    "xyzt_units": (123, "B"), "cal_max": (124, "f"), "cal_min": (128, "f"), "slice_duration": (132, "f"),
    "toffset": (136, "f"), "descrip": (148, "80s"), "aux_file": (228, "24s"), "qform_code": (252, "h"),
    "sform_code": (254, "h"), "quatern_and_offset": (256, "6f"), "srow": (280, "12f"), "intent_name": (328, "16s"),
}  # fmt: skip
"""Offset and type of what is copied. Not copied: how numbers are stored (type, scaling, place), and extensions."""

DIM = (40, "8h")


def byte_order(header: bytes) -> str | None:
    """``<`` or ``>`` of a NIfTI-1 header, None for anything else."""
    if len(header) < SIZE or header[344:347] != b"n+1":
        return None
    return next((order for order in "<>" if struct.unpack_from(f"{order}i", header)[0] == SIZE), None)


def with_fields_of(source: bytes, made: bytes) -> bytes:
    """The header ``made`` with the fields of ``source``, where both are NIfTI-1 of the same axes; else ``made``."""
    theirs, ours = byte_order(source), byte_order(made)
    if theirs is None or ours is None:
        return made
    if struct.unpack_from(theirs + DIM[1], source, DIM[0]) != struct.unpack_from(ours + DIM[1], made, DIM[0]):
        return made
    changed = bytearray(made)
    for at, kind in FIELDS.values():
        struct.pack_into(ours + kind, changed, at, *struct.unpack_from(theirs + kind, source, at))
    return bytes(changed)


def copy_fields(source: bytes, path: Path) -> None:
    """Give the uncompressed NIfTI file at ``path`` the fields of the header ``source``."""
    with open(path, "rb+") as stream:
        made = stream.read(SIZE)
        stream.seek(0)
        stream.write(with_fields_of(source, made))
