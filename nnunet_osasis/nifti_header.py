"""NIfTI headers, field by field: SimpleITK keeps where voxels lie, and drops or rewrites most of the rest.

Its files always say "scanner coordinates" (``sform_code`` and ``qform_code`` 1), whatever the source said, and lose
units of further axes, display range, intent and slice timing.
"""

from __future__ import annotations

import struct
from pathlib import Path

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
