"""NIfTI-1 and NIfTI-2 files (``.nii``, ``.nii.gz``) in and out, through nibabel, every header field kept.

nibabel is imported when the first such file is read or written.
"""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.headers import check_size, check_spacing, refuse
from nnunet_osasis.images.image import Geometry, LoadedImage

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

NIFTI_SUFFIXES = (".nii", ".nii.gz")

HEADER = "nifti"
"""Key of the file's nibabel header in ``LoadedImage.kept``."""

GZIP = b"\x1f\x8b"

MAX_GZIP_RATIO = 1032
"""Bytes that one byte of a deflate stream can unpack to; a stream that announces more is truncated."""

MAX_OFFSET = 2**30
"""Largest accepted byte offset of the voxels; the bytes before them are the header and its extensions."""

CHUNK = 2**20
"""Bytes read after the voxels."""

RGB = 128
"""NIfTI's code for voxels of three unsigned bytes."""

VECTOR, LABEL = 1007, 1002
"""NIfTI's intent codes for several channels on the fifth axis and for label maps."""

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Matrix from NIfTI's coordinates (right, anterior, superior) to ITK's, and back."""

MAX_NIFTI1_SIDE = 2**15 - 1
"""Largest side, in voxels, that fits NIfTI-1's 16 bits; larger ones are written as NIfTI-2."""

QUATERNION = ("quatern_b", "quatern_c", "quatern_d")
"""Header fields of the rotation."""

MILLIMETERS = {1: 1000.0, 3: 0.001}
"""Millimeters of NIfTI's other spatial units, by their code: meter and micrometer."""


def read_nifti(path: Path, suffix: str) -> tuple[np.ndarray, Geometry, dict[str, Any]]:
    """Read ``(C, H, W)`` or ``(C, D, H, W)``, the geometry, and the header that :func:`write_nifti` keeps.

    The fourth or the fifth axis becomes the channels, whichever is longer than 1. A slope and an intercept are
    applied; such values are 32-bit floats (64-bit where the file has them).

    Raises:
        OsasisError: a header that contradicts itself or the length of the file, more values than allowed, a spacing
            that is not positive, channels on two axes.
        OSError, EOFError, zlib.error: a truncated or damaged file.
    """
    with open(path, "rb") as plain:
        packed = suffix == ".nii.gz" and plain.read(2) == GZIP
    stream: IO[bytes] = gzip.open(path) if packed else open(path, "rb")  # type: ignore[assignment] # noqa: SIM115
    with stream:
        header = _read_header(stream, path)
        values = _read_voxels(stream, header, path, packed=packed)
        stream.read(CHUNK)  # to the end of a packed stream, where its checksum is
    return values, _geometry(header, path), {HEADER: header}


def _read_header(stream: IO[bytes], path: Path) -> Nifti1Header:
    """Parse the header as it is stored; nibabel's own checks would repair what is refused here."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    start = stream.read(4)
    classes = {348: Nifti1Header, 540: Nifti2Header}
    for order in "<>":
        size = struct.unpack(f"{order}i", start)[0] if len(start) == 4 else 0
        if size in classes:
            break
    else:
        raise refuse(path, "no NIfTI header")
    header = classes[size](start + stream.read(size - 4), endianness=order, check=False)
    if bytes(header["magic"])[:3] not in (b"n+1", b"n+2"):
        raise refuse(path, "no NIfTI file with header and voxels in one")
    if not 1 <= int(header["dim"][0]) <= 7:
        raise refuse(path, f"{int(header['dim'][0])} axes")
    axes = min(int(header["dim"][0]), 3)
    check_spacing(path, header["pixdim"][1 : axes + 1].tolist(), header["dim"][1 : axes + 1].tolist())
    return header


def _read_voxels(stream: IO[bytes], header: Nifti1Header, path: Path, *, packed: bool) -> np.ndarray:
    """Read ``(C, H, W)`` or ``(C, D, H, W)``, scaled; every number that memory is taken by is checked before."""
    dtype, offset = header.get_data_dtype(), float(header["vox_offset"])
    colors = 3 if header["datatype"] == RGB else 1
    plain = dtype.kind in "iuf" and dtype.itemsize <= 8
    known = (plain or colors == 3) and dtype.itemsize * 8 == int(header["bitpix"])
    if not (known and math.isfinite(offset) and len(header.binaryblock) <= offset <= MAX_OFFSET):
        raise refuse(path, f"voxels of type {header['datatype']} in {header['bitpix']} bits at byte {offset:g}")
    sides = [int(side) for side in header["dim"][1 : int(header["dim"][0]) + 1]]
    count = check_size([*sides, colors], path)
    stored = np.dtype(np.uint8) if colors == 3 else dtype
    size, length = count * stored.itemsize, path.stat().st_size
    if offset + size > length * (MAX_GZIP_RATIO if packed else 1):
        raise refuse(path, f"truncated, {length} bytes for {size} bytes of voxels")
    x, y, z, *others = sides + [1] * (7 - len(sides))
    channels = [side for side in (*others, colors) if side > 1]
    if len(channels) > 1:
        raise refuse(path, f"channels on {len(channels)} axes", "Split it into volumes of one such axis.")
    stream.seek(int(offset))
    voxels = bytearray(size)
    if (read := stream.readinto(voxels)) < size:  # type: ignore[attr-defined]
        raise refuse(path, f"truncated, {read} of {size} bytes of voxels")
    values = np.frombuffer(voxels, stored).astype(stored.newbyteorder("="), copy=False)
    values = np.moveaxis(values.reshape(-1, z, y, x, colors), -1, 1).reshape(-1, z, y, x)
    return _scaled(values[:, 0] if z == 1 else values, header)


def _scaled(values: np.ndarray, header: Nifti1Header) -> np.ndarray:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not (math.isfinite(slope) and slope):
        return values  # a slope of 0 means that the values are stored as they are
    intercept = intercept if math.isfinite(intercept) else 0.0
    if (slope, intercept) == (1, 0) or header["datatype"] == RGB:
        return values
    scaled = np.empty(values.shape, np.float64 if values.dtype == np.float64 else np.float32)
    for plane in np.ndindex(values.shape[:-2]):  # whole volumes in 64 bits are large
        scaled[plane] = values[plane] * np.float64(slope) + intercept
    return scaled


def _geometry(header: Nifti1Header, path: Path) -> Geometry:
    """Compute where voxels lie, in ITK's coordinates (left, posterior, superior), by ITK's choice of two matrices."""
    header = header.copy()
    steps = header["pixdim"][1:5].astype(np.float64)
    header["pixdim"][1:4] = steps[:3] = np.where(steps[:3] > 0, steps[:3], 1)  # 0 along axes of one voxel
    sform_code, qform_code = int(header["sform_code"]), int(header["qform_code"])
    if sform_code > 0 and (sform_code == 1 or qform_code <= 0):
        affine = TO_LPS @ header.get_sform()
    elif qform_code > 0:
        header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # 0 counts as 1
        length = float(np.sqrt(sum(float(header[name]) ** 2 for name in QUATERNION)))
        if length > 1:  # rounded when it was written
            for name in QUATERNION:
                header[name] = float(header[name]) / length
        affine = TO_LPS @ header.get_qform()
    else:
        affine = np.eye(4)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    turn = affine[:3, :3] / np.where(lengths > 0, lengths, 1)
    if not np.allclose(turn.T @ turn, np.eye(3), atol=1e-2):
        raise refuse(path, "a geometry whose axes are not at right angles", "Resample it to a plain grid.")
    axes = 4 if header["dim"][0] >= 4 and header["dim"][4] > 1 else min(max(int(header["dim"][0]), 2), 3)
    unit = MILLIMETERS.get(int(header["xyzt_units"]) % 8, 1.0)
    spacing, origin, direction = np.ones(4), np.zeros(4), np.eye(4)
    spacing[:3], origin[:3], direction[:3, :3] = steps[:3] * unit, affine[:3, 3] * unit, turn
    spacing[3] = steps[3] if steps[3] > 0 else 1
    return Geometry.of(spacing[:axes], origin[:axes], direction[:axes, :axes])


def write_nifti(loaded: LoadedImage, array: np.ndarray, path: Path) -> None:
    """Write ``array`` with the header of ``loaded``, or, of another format, with a new header of its geometry.

    Sizes, numbers and their place are the array's; all else is the source's, except for extensions, which are
    dropped. A packed file holds no name and no time: the same voxels give the same bytes.

    Raises:
        OsasisError: the header of ``loaded`` is of another size than ``array``.
    """
    array = array.astype({"?": np.uint8, "e": np.float32}.get(array.dtype.char, array.dtype), copy=False)
    header = loaded.kept[HEADER].copy() if HEADER in loaded.kept else _new_header(array, loaded.geometry)
    colors = header["datatype"] == RGB
    if math.prod(header.get_data_shape()) * (3 if colors else 1) != array.size:
        raise OsasisError("A NIfTI header must fit the voxels", found=f"{header.get_data_shape()} for {array.shape}")
    if not colors:
        header.set_data_dtype(array.dtype)
    header["vox_offset"] = len(header.binaryblock) + 4
    header["scl_slope"], header["scl_inter"] = 1, 0
    stored = array.dtype.newbyteorder(header.endianness)
    voxels = np.ascontiguousarray(np.moveaxis(array, 0, -1) if colors else array, dtype=stored)
    packed = path.name.lower().endswith(".gz")
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, 0) if packed else nullcontext(raw) as stream:
        stream.write(header.binaryblock + bytes(4))
        stream.write(voxels.data)


def _new_header(array: np.ndarray, geometry: Geometry | None) -> Nifti1Header:
    """Make a header for an array of another format; channels go to the fourth or the fifth axis, as ITK puts them."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    channels, sides = array.shape[0], array.shape[:0:-1]
    axes = len(sides) if geometry is None else len(geometry.spacing)
    header = (Nifti1Header if max(array.shape) <= MAX_NIFTI1_SIDE else Nifti2Header)()
    padded = (*sides, 1)[:3]
    if axes == 4:
        header.set_data_shape((*padded, channels))
    elif channels > 1:
        header.set_data_shape((*padded, 1, channels))
        header["intent_code"] = VECTOR
    else:
        header.set_data_shape(padded[:axes])
    affine = np.eye(4) if geometry is None else geometry.affine()
    header.set_xyzt_units("mm", "sec")
    header.set_qform(TO_LPS @ affine, 1)
    header.set_sform(TO_LPS @ affine, 1)
    return header


def as_labels(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a label map keeps of its image: where the voxels lie, but not the range that viewers show."""
    if HEADER not in kept:
        return {}
    header = kept[HEADER].copy()
    header["cal_min"] = header["cal_max"] = 0
    header["intent_code"], header["intent_name"] = LABEL, b""
    return {HEADER: header}
