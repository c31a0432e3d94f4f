"""Reading files: what cannot be read is one clear error, and no library is loaded that the files do not need."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.images.image import check_array
from nnunet_osasis.images.io import list_images, read_image


def empty_png(side: int) -> bytes:
    """A PNG file that says how large it is and holds no pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    packed = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (20000, r"178 million pixels at most; got .*400000000 pixels.*a\.png\. Save it as TIFF"),
        (20, r"readable.*a\.png"),
    ],
)
def test_pictures_too_large_or_without_content_are_named(tmp_path: Path, side: int, message: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(empty_png(side))
    with pytest.raises(OsasisError, match=message):
        read_image(path)


def test_masked_arrays_are_refused() -> None:
    with pytest.raises(OsasisError, match="filled"):
        check_array(np.ma.array(np.zeros((1, 4, 4)), mask=np.ones((1, 4, 4), bool)))


def test_libraries_of_other_formats_are_not_loaded(tmp_path: Path) -> None:
    """A worker that reads pictures does not wait for SimpleITK, nor one that reads NIfTI files."""
    from hostile.files import encoded, nifti, picture

    (tmp_path / "a.bmp").write_bytes(encoded(picture(), "BMP"))
    (tmp_path / "a.nii").write_bytes(nifti())
    code = (
        "import sys\n"
        "from nnunet_osasis.images.io import list_images, read_image\n"
        "heavy = ('SimpleITK', 'nibabel', 'imagecodecs', 'tifffile')\n"
        "for path in sys.argv[1:]:\n"
        "    read_image(path)\n"
        "    print(*(name for name in heavy if name in sys.modules), sep=',')\n"
    )
    files = [str(tmp_path / "a.bmp"), str(tmp_path / "a.nii")]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["", "nibabel"]


@pytest.mark.parametrize(("field", "value"), [("pixdim", (0, 2, 2, 3)), ("quatern", 1.001), ("scl_inter", math.nan)])
def test_nifti_headers_that_other_tools_write_slightly_wrong_are_read(tmp_path: Path, field: str, value) -> None:
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    image = nibabel.Nifti1Image(values, np.diag([-2.0, -2, 3, 1]))
    image.set_sform(None, 0)
    image.set_qform(np.diag([-2.0, -2, 3, 1]), 1)
    header = image.header
    if field == "pixdim":
        header["pixdim"][:4] = value
    elif field == "quatern":
        header["quatern_d"] = value
    else:
        header["scl_slope"], header["scl_inter"] = 1, value
    header["vox_offset"] = 352
    path = tmp_path / "image.nii"
    path.write_bytes(header.binaryblock + bytes(4) + values.tobytes(order="F"))
    loaded = read_image(path)
    assert np.array_equal(loaded.array[0], values.transpose(2, 1, 0))
    assert loaded.geometry.spacing == pytest.approx((2, 2, 3))


def test_a_nifti_file_with_sheared_axes_is_refused(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2, 3, 1])
    affine[0, 1] = 1
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), affine), tmp_path / "sheared.nii")
    with pytest.raises(OsasisError, match="right angles"):
        read_image(tmp_path / "sheared.nii")


def test_files_of_other_formats_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.bmp", "b.hdr", "b.img", ".c.dcm", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in list_images(tmp_path)] == ["a.bmp"]
    assert "2 files" in caplog.text and "such as b.hdr" in caplog.text
