"""Pictures that cannot be read are one clear error."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.images.io import read_image


def empty_png(side: int) -> bytes:
    """A PNG file that says how large it is and holds no pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    packed = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(("side", "reason"), [(20000, "400000000 pixels"), (20, "")])
def test_pictures_too_large_or_without_content_are_named(tmp_path: Path, side: int, reason: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(empty_png(side))
    with pytest.raises(OsasisError, match=rf"readable; got .*a\.png: .*{reason}"):
        read_image(path)
