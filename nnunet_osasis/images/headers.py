"""Limits that headers are held to before memory is taken, and the text headers of MetaImage and NRRD.

SimpleITK believes those two: it fills what a damaged packed file lacks with whatever was in memory, counts to any
number of axes, and follows the name of a data file anywhere on the disk. Such files are refused before it reads them.
"""

from __future__ import annotations

import math
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nnunet_osasis.errors import OsasisError

VARIABLE = "OSASIS_MAX_VALUES"
"""Name of the environment variable that replaces ``MAX_VALUES``."""

MAX_VALUES = 2**30
"""Numbers (pixels or voxels times channels) of one image: 1024 x 1024 x 1024 in one channel."""

MAX_HEADER_BYTES = 2**20
"""Longest text header that is read, in bytes."""

META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4,
              "LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}  # fmt: skip
"""Bytes of one number of MetaImage's types."""

CHUNK = 2**20
"""Bytes that are unpacked at a time."""

IN_THIS_FILE = "local"
"""MetaImage's word, in lower case, for voxels that follow the header."""


def max_values() -> int:
    """Return ``MAX_VALUES``, or what the environment variable ``OSASIS_MAX_VALUES`` says instead.

    Raises:
        OsasisError: the variable is no whole number of at least 1.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return MAX_VALUES
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
        raise OsasisError(f"{VARIABLE} must be a whole number of at least 1", found=text[:40], remedy="Unset it.")
    return int(text)


def check_size(sides: Iterable[int], path: str | Path) -> int:
    """Return the product of ``sides``, the number of channels included.

    Raises:
        OsasisError: a side below 1, or more values than :func:`max_values`.
    """
    shape = [int(side) for side in sides]
    if any(side < 1 for side in shape):
        raise OsasisError("An image's sides must be at least 1", found=f"{shape} in {path}", remedy="Leave it out.")
    values, most = math.prod(shape), max_values()
    if values > most:
        raise OsasisError(
            f"An image may hold {most} values at most",
            found=f"{' x '.join(map(str, shape))} in {path}",
            remedy=f"If the file is what it says and there is memory for it, set the variable {VARIABLE} higher.",
        )
    return values


def check_spacing(path: Path, spacing: Sequence[float], sides: Sequence[int]) -> None:
    """Refuse a spacing that is not positive and finite along an axis of several voxels.

    Writers leave the spacing of an axis of one voxel at 0.
    """
    if any(side > 1 and not (math.isfinite(step) and step > 0) for step, side in zip(spacing, sides, strict=False)):
        raise OsasisError(
            "A volume's spacing must be positive numbers",
            found=f"{tuple(spacing)} in {path}",
            remedy="Repair the header.",
        )


def refuse(path: Path, reason: str, remedy: str = "Replace the file or leave it out.") -> OsasisError:
    """Make the error about a file that cannot be read."""
    return OsasisError("The image must be readable", found=f"{path}: {reason}", remedy=remedy)


def check_volume_file(path: Path) -> tuple[Path, ...]:
    """Check the header of a MetaImage or NRRD file; return the files that hold the volume, ``path`` first.

    Raises:
        OsasisError: more values than allowed, fewer packed bytes than announced, a spacing that is not positive, or
            voxels in files other than one beside the header.
    """
    return _check_meta(path) if path.name.lower().endswith((".mha", ".mhd")) else _check_nrrd(path)


def _header_lines(path: Path, last: str) -> tuple[list[str], int]:
    """Read a text header up to the line whose key is ``last`` (without ``last``: up to the first empty line).

    Returns its lines and the byte offset after them.
    """
    lines: list[str] = []
    with open(path, "rb") as stream:
        while stream.tell() < MAX_HEADER_BYTES and (raw := stream.readline(MAX_HEADER_BYTES)):
            line = raw.decode("latin-1").strip()
            lines.append(line)
            if line.lower().startswith(last) if last else not line:
                return lines, stream.tell()
    if path.stat().st_size > MAX_HEADER_BYTES:
        raise refuse(path, "a header without end")
    return lines, path.stat().st_size


def _numbers(path: Path, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split()]
    except ValueError:
        raise refuse(path, f"{text[:60]!r} in the header, where numbers belong") from None


def _fields(path: Path, lines: Sequence[str], mark: str) -> dict[str, str]:
    """Return lower-case keys and their values. No key may be there twice: libraries differ in which one they take."""
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(mark)
        if (name := key.strip().lower()) in fields and name:
            raise refuse(path, f"{name[:60]!r} twice in the header")
        fields[name] = value.strip()
    return fields


def _require_number(path: Path, fields: Mapping[str, str], key: str, least: int, most: int) -> None:
    """Refuse an entry that is no whole number from ``least`` to ``most``: SimpleITK counts to it, or skips by it."""
    if key in fields and not (re.fullmatch(r"-?\d{1,18}", fields[key]) and least <= int(fields[key]) <= most):
        raise refuse(path, f"{key} = {fields[key][:40]!r} in the header")


def _check_meta(path: Path) -> tuple[Path, ...]:
    lines, start = _header_lines(path, "elementdatafile")
    fields = _fields(path, lines, "=")
    if "elementdatafile" not in fields or "dimsize" not in fields:
        raise refuse(path, "no MetaImage header")
    sides = _numbers(path, fields["dimsize"])
    values = _check_sides(path, [*sides, *_numbers(path, fields.get("elementnumberofchannels", "1"))])
    _require_number(path, fields, "ndims", len(sides), len(sides))
    for key, least in (("headersize", -1), ("compresseddatasize", 0)):
        _require_number(path, fields, key, least, path.stat().st_size)
    check_spacing(path, _numbers(path, fields.get("elementspacing", "")), [int(side) for side in sides])
    name = fields["elementdatafile"]
    local = name.lower() == IN_THIS_FILE
    data = path if local else _companion(path, name)
    if fields.get("compresseddata", "").lower()[:1] == "t":
        each = META_BYTES.get(fields.get("elementtype", "").upper().removeprefix("MET_").removesuffix("_ARRAY"), 1)
        _check_packed(path, data, start if local else 0, values * each)
    return (path,) if local else (path, data)


def _check_packed(path: Path, data: Path, start: int, size: int) -> None:
    """Unpack ``size`` bytes of voxels once, in small parts, as MetaImage's reader does not notice when that fails."""
    unpack, unpacked = zlib.decompressobj(47), 0  # zlib or gzip
    try:
        with open(data, "rb") as stream:
            stream.seek(start)
            while not unpack.eof and unpacked <= size and (part := stream.read(CHUNK)):
                while part and unpacked <= size:
                    unpacked += len(unpack.decompress(part, CHUNK))
                    part = unpack.unconsumed_tail
    except zlib.error as error:
        raise refuse(path, f"damaged ({error})") from error
    if not unpack.eof or unpacked < size:
        raise refuse(path, f"truncated or damaged, {unpacked} of {size} bytes of voxels")


def _check_nrrd(path: Path) -> tuple[Path, ...]:
    lines, _ = _header_lines(path, "")
    if not lines or not lines[0].startswith("NRRD"):
        raise refuse(path, "no NRRD header")
    fields = _fields(path, [line for line in lines[1:] if line[:1] != "#" and ":=" not in line], ":")
    sides = _numbers(path, fields.get("sizes", ""))
    _check_sides(path, sides)
    _require_number(path, fields, "dimension", len(sides), len(sides))
    for key in ("line skip", "lineskip", "byte skip", "byteskip"):
        _require_number(path, fields, key, -1 if "byte" in key else 0, path.stat().st_size)
    steps = _numbers(path, fields.get("spacings", ""))
    stated = [(step, int(side)) for step, side in zip(steps, sides, strict=False) if not math.isnan(step)]
    check_spacing(path, [step for step, _ in stated], [side for _, side in stated])
    name = fields.get("data file", fields.get("datafile"))
    return (path,) if name is None else (path, _companion(path, name))


def _check_sides(path: Path, sides: Sequence[float]) -> int:
    if not sides or not all(math.isfinite(side) and side == int(side) for side in sides):
        raise refuse(path, f"the sides {list(sides)}")
    return check_size([int(side) for side in sides], path)


def _companion(path: Path, name: str) -> Path:
    """Return the data file that a header names; only a plain file beside the header is accepted."""
    inside = name not in ("", ".", "..") and not any(mark in name for mark in "/\\\0%")
    if not inside or name.lower().startswith("list"):
        raise refuse(
            path, f"its voxels are in {name[:80]!r}", "Voxels must be in one file beside the header: save it as .mha."
        )
    companion = path.parent / name
    if not companion.is_file():
        raise refuse(path, f"no file {name!r} beside it", "Copy both files, or save it as .mha.")
    return companion
