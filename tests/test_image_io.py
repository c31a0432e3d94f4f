"""Pictures that cannot be read are one clear error."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.image_io import read_image


def png_header(width: int, height: int) -> bytes:
    """A PNG file that says how large it is and ends there."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


@pytest.mark.parametrize(("side", "reason"), [(20000, "pixels"), (20, "")])
def test_pictures_too_large_or_without_content_are_named(tmp_path: Path, side: int, reason: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_header(side, side))
    with pytest.raises(OsasisError, match=rf"readable; got .*a\.png: .*{reason}"):
        read_image(path)
