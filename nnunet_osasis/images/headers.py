"""How large an image may say it is: checked against its header, before any memory is taken for it.

What volume files say about themselves, read before SimpleITK is asked, because it trusts them.

It fills what is missing of a truncated NIfTI file, or of a damaged packed MetaImage, with whatever was in memory, turns
NaN into 0 and a spacing that is no number into 1, counts for ever to a negative number of axes, and follows the name
of a data file anywhere on the disk. Here such files are refused.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from nnunet_osasis.errors import OsasisError

VARIABLE = "OSASIS_MAX_VALUES"

MAX_VALUES = 2**30
"""Numbers (pixels or voxels times channels) of one image: 1024 x 1024 x 1024 in one channel."""


def most_values() -> int:
    """``MAX_VALUES``, or what the environment variable ``OSASIS_MAX_VALUES`` says instead.

    Raises ``OsasisError`` unless that is a whole number of at least 1.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return MAX_VALUES
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
        raise OsasisError(f"{VARIABLE} must be a whole number of at least 1", found=text[:40], remedy="Unset it.")
    return int(text)


def check_size(sides: Iterable[int], path: str | Path) -> int:
    """The product of ``sides``, channels too. Raises ``OsasisError`` for a side below 1 and for too many values."""
    shape = [int(side) for side in sides]
    if any(side < 1 for side in shape):
        raise OsasisError("An image's sides must be at least 1", found=f"{shape} in {path}", remedy="Leave it out.")
    values, most = math.prod(shape), most_values()
    if values > most:
        raise OsasisError(
            f"An image may hold {most} values at most",
            found=f"{' x '.join(map(str, shape))} in {path}",
            remedy=f"If the file is what it says and there is memory for it, set the variable {VARIABLE} higher.",
        )
    return values


LONGEST_HEADER = 2**20

LONGEST_NIFTI = 544

NIFTI_FLOATS = (16, 64)

NIFTI_BITS = {2: 8, 4: 16, 8: 32, 16: 32, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64}
"""Bits of NIfTI's types; complex, 128-bit and RGBA voxels are left out."""

META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4,
              "LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}  # fmt: skip

CHUNK = 2**20

GZIP = b"\x1f\x8b"

IN_THIS_FILE = "local"


def check_volume_file(path: Path) -> tuple[Path, ...]:
    """Look at a volume file's header; returns the files its voxels are in, itself first.

    Raises:
        OsasisError: more values than allowed, fewer bytes than announced (NIfTI), a damaged gzip stream, a spacing
            that is not positive, or voxels in files other than one beside the header.
    """
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        _check_nifti(path)
        return (path,)
    return _check_meta(path) if name.endswith((".mha", ".mhd")) else _check_nrrd(path)


def _refuse(path: Path, reason: str, remedy: str = "Replace the file or leave it out.") -> OsasisError:
    return OsasisError("The image must be readable", found=f"{path}: {reason}", remedy=remedy)


def _check_spacing(path: Path, spacing: Sequence[float], sides: Sequence[int]) -> None:
    """Sides of length 1 have no neighbour, and writers leave their spacing at 0."""
    if any(side > 1 and not (math.isfinite(step) and step > 0) for step, side in zip(spacing, sides, strict=False)):
        raise OsasisError(
            "A volume's spacing must be positive numbers",
            found=f"{tuple(spacing)} in {path}",
            remedy="Repair the header.",
        )


def _check_nifti(path: Path) -> None:
    with open(path, "rb") as plain:
        packed = plain.read(2) == GZIP
    try:
        opened: IO[bytes] = gzip.open(path) if packed else open(path, "rb")  # type: ignore[assignment] # noqa: SIM115
        with opened as stream:
            header = stream.read(LONGEST_NIFTI)
            start, length, numbers = _nifti_voxels(path, header)
            stream.seek(start)
            there, finite = _look_through(stream, length, numbers)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _refuse(path, f"damaged or truncated ({error})") from error
    if there < length:
        raise _refuse(path, f"truncated, {there} of {length} bytes of voxels")
    if not finite:
        raise OsasisError(f"{path} must be finite", found="NaN or infinite values", remedy="Repair or drop it.")


def _look_through(stream: IO[bytes], wanted: int, numbers: np.dtype | None) -> tuple[int, bool]:
    """How many of ``wanted`` bytes there are, and whether they are finite ``numbers``. A packed stream is read to its
    end, where its checksum is, but no more than one part further than wanted."""
    found, finite = 0, True
    while found <= wanted and (part := stream.read(CHUNK)):
        if numbers is not None:
            inside = part[: max(0, wanted - found)]
            whole = inside[: len(inside) // numbers.itemsize * numbers.itemsize]
            finite = finite and bool(np.isfinite(np.frombuffer(whole, numbers)).all())
        found += len(part)
    return found, finite


def _nifti_voxels(path: Path, header: bytes) -> tuple[int, int, np.dtype | None]:
    """Where the voxels of a NIfTI-1 or NIfTI-2 file begin, their length in bytes, and their type if they are floats."""
    layouts = {348: ("8h", 40, "2h", 70, "8f", 76, "f", 108, 344), 540: ("8q", 16, "2h", 12, "8d", 104, "q", 168, 4)}
    for order in "<>":
        size = struct.unpack_from(f"{order}i", header)[0] if len(header) >= 4 else 0
        if size in layouts and len(header) >= size + 4:
            break
    else:
        raise _refuse(path, "no NIfTI header")
    dims, at_dims, bits, at_bits, steps, at_steps, offset, at_offset, at_magic = layouts[size]
    if header[at_magic : at_magic + 3] not in (b"n+1", b"n+2"):
        raise _refuse(path, "no NIfTI file with header and voxels in one")
    sides = struct.unpack_from(order + dims, header, at_dims)
    if not 1 <= sides[0] <= 7:
        raise _refuse(path, f"{sides[0]} axes")
    values = check_size(sides[1 : sides[0] + 1], path)
    space = min(sides[0], 3)
    _check_spacing(path, struct.unpack_from(order + steps, header, at_steps)[1 : space + 1], sides[1 : space + 1])
    start = float(struct.unpack_from(order + offset, header, at_offset)[0])
    kind, bits_each = struct.unpack_from(order + bits, header, at_bits)
    if not (math.isfinite(start) and size <= start < 2**40) or NIFTI_BITS.get(kind) != bits_each:
        raise _refuse(path, f"voxels of type {kind} in {bits_each} bits at byte {start:g}")
    numbers = np.dtype(f"{order}f{bits_each // 8}") if kind in NIFTI_FLOATS else None
    return int(start), (values * bits_each + 7) // 8, numbers


def _header_lines(path: Path, last: str) -> tuple[list[str], int]:
    """Lines of a text header, up to the one whose key is ``last`` (without ``last``: up to the empty one), and the
    place after them."""
    lines: list[str] = []
    with open(path, "rb") as stream:
        while stream.tell() < LONGEST_HEADER and (raw := stream.readline(LONGEST_HEADER)):
            line = raw.decode("latin-1").strip()
            lines.append(line)
            if line.lower().startswith(last) if last else not line:
                return lines, stream.tell()
    if path.stat().st_size > LONGEST_HEADER:
        raise _refuse(path, "a header without end")
    return lines, path.stat().st_size


def _numbers(path: Path, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split()]
    except ValueError:
        raise _refuse(path, f"{text[:60]!r} in the header, where numbers belong") from None


def _fields(path: Path, lines: Sequence[str], mark: str) -> dict[str, str]:
    """Lower-case keys and their values. Libraries differ in which of two equal keys they take, so none may be twice."""
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(mark)
        if (name := key.strip().lower()) in found and name:
            raise _refuse(path, f"{name[:60]!r} twice in the header")
        found[name] = value.strip()
    return found


def _require_number(path: Path, fields: Mapping[str, str], key: str, least: int, most: int) -> None:
    """A whole number that SimpleITK would count to, or skip by."""
    if key in fields and not (re.fullmatch(r"-?\d{1,18}", fields[key]) and least <= int(fields[key]) <= most):
        raise _refuse(path, f"{key} = {fields[key][:40]!r} in the header")


def _check_meta(path: Path) -> tuple[Path, ...]:
    lines, start = _header_lines(path, "elementdatafile")
    fields = _fields(path, lines, "=")
    if "elementdatafile" not in fields or "dimsize" not in fields:
        raise _refuse(path, "no MetaImage header")
    sides = _numbers(path, fields["dimsize"])
    values = _check_sides(path, [*sides, *_numbers(path, fields.get("elementnumberofchannels", "1"))])
    _require_number(path, fields, "ndims", len(sides), len(sides))
    for key, least in (("headersize", -1), ("compresseddatasize", 0)):
        _require_number(path, fields, key, least, path.stat().st_size)
    _check_spacing(path, _numbers(path, fields.get("elementspacing", "")), [int(side) for side in sides])
    name = fields["elementdatafile"]
    local = name.lower() == IN_THIS_FILE
    data = path if local else _companion(path, name)
    if fields.get("compresseddata", "").lower()[:1] == "t":
        each = META_BYTES.get(fields.get("elementtype", "").upper().removeprefix("MET_").removesuffix("_ARRAY"), 1)
        _check_packed(path, data, start if local else 0, values * each)
    return (path,) if local else (path, data)


def _check_packed(path: Path, data: Path, start: int, wanted: int) -> None:
    """Unpack voxels once, in small parts: MetaImage's reader goes on with what was in memory when that fails."""
    unpack, found = zlib.decompressobj(47), 0  # zlib or gzip
    try:
        with open(data, "rb") as stream:
            stream.seek(start)
            while not unpack.eof and found <= wanted and (part := stream.read(CHUNK)):
                while part and found <= wanted:
                    found += len(unpack.decompress(part, CHUNK))
                    part = unpack.unconsumed_tail
    except zlib.error as error:
        raise _refuse(path, f"damaged ({error})") from error
    if not unpack.eof or found < wanted:
        raise _refuse(path, f"truncated or damaged, {found} of {wanted} bytes of voxels")


def _check_nrrd(path: Path) -> tuple[Path, ...]:
    lines, _ = _header_lines(path, "")
    if not lines or not lines[0].startswith("NRRD"):
        raise _refuse(path, "no NRRD header")
    fields = _fields(path, [line for line in lines[1:] if line[:1] != "#" and ":=" not in line], ":")
    sides = _numbers(path, fields.get("sizes", ""))
    _check_sides(path, sides)
    _require_number(path, fields, "dimension", len(sides), len(sides))
    for key in ("line skip", "lineskip", "byte skip", "byteskip"):
        _require_number(path, fields, key, -1 if "byte" in key else 0, path.stat().st_size)
    steps = _numbers(path, fields.get("spacings", ""))
    given = [(step, side) for step, side in zip(steps, sides, strict=False) if not math.isnan(step)]  # NaN: none given
    _check_spacing(path, [step for step, _ in given], [int(side) for _, side in given])
    name = fields.get("data file", fields.get("datafile"))
    return (path,) if name is None else (path, _companion(path, name))


def _check_sides(path: Path, sides: Sequence[float]) -> int:
    if not sides or not all(math.isfinite(side) and side == int(side) for side in sides):
        raise _refuse(path, f"the sides {list(sides)}")
    return check_size([int(side) for side in sides], path)


def _companion(path: Path, name: str) -> Path:
    """The data file a header names, if it is a plain file beside it: headers come from elsewhere, the disk is ours."""
    inside = name not in ("", ".", "..") and not any(mark in name for mark in "/\\\0%")
    if not inside or name.lower().startswith("list"):
        raise _refuse(
            path, f"its voxels are in {name[:80]!r}", "Voxels must be in one file beside the header: save it as .mha."
        )
    found = path.parent / name
    if not found.is_file():
        raise _refuse(path, f"no file {name!r} beside it", "Copy both files, or save it as .mha.")
    return found
