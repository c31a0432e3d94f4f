"""Whether a PNG file holds all rows it announces: Pillow leaves those that are missing black, and says nothing."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of each pass of interlaced files: first column and row, and the steps between them."""
CHUNK = 2**20


def pixel_bytes(header: bytes) -> int:
    """Bytes of all rows, with their filter bytes, by the 13 bytes of the header chunk."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if colour not in SAMPLES:
        raise ValueError(f"colour type {colour}")
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for column, row, across, down in passes:
        columns, rows = -(-(width - column) // across), -(-(height - row) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * SAMPLES[colour] * depth + 7) // 8)
    return total


def require_all_rows(path: Path) -> None:
    """Unpack a PNG file's pixels, in small parts, as far as its header says. Raises ``ValueError`` for fewer."""
    unpack, found, wanted = zlib.decompressobj(), 0, None
    with open(path, "rb") as stream:
        if stream.read(8) != SIGNATURE:
            return
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"IHDR":
                wanted = pixel_bytes(stream.read(13))
                length -= 13
            elif kind == b"IDAT":
                while (
                    length > 0 and wanted is not None and found < wanted and (part := stream.read(min(length, CHUNK)))
                ):
                    length -= len(part)
                    while part and found < wanted:
                        found += len(unpack.decompress(part, CHUNK))
                        part = unpack.unconsumed_tail
            elif kind == b"IEND":
                break
            stream.seek(length + 4, 1)
    found += len(unpack.flush())
    if wanted is None or found < wanted:
        raise ValueError(f"truncated, {found} of {wanted} bytes of pixels")
