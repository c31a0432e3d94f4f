"""Reading files: what cannot be read is one clear error, and no library is loaded that the files do not need."""

from __future__ import annotations

import struct
import subprocess
import sys
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


def test_libraries_of_other_formats_are_not_loaded(tmp_path: Path) -> None:
    """A worker that reads pictures does not wait for SimpleITK, nor one that reads NIfTI files."""
    from hostile.files import encoded, nifti, picture

    (tmp_path / "a.bmp").write_bytes(encoded(picture(), "BMP"))
    (tmp_path / "a.nii").write_bytes(nifti())
    code = (
        "import sys\n"
        "from nnunet_osasis.images.io import read_image\n"
        "heavy = ('SimpleITK', 'nibabel', 'imagecodecs', 'tifffile')\n"
        "for path in sys.argv[1:]:\n"
        "    read_image(path)\n"
        "    print(*(name for name in heavy if name in sys.modules), sep=',')\n"
    )
    files = [str(tmp_path / "a.bmp"), str(tmp_path / "a.nii")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["", "nibabel"]
