"""Bytes of odd files: pictures and volumes whose headers, lengths or contents are not what they should be."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image

from nnunet_osasis.images.io import read_image

Change = Callable[[bytes], bytes]


def picture(channels: int = 3, shape: tuple[int, int] = (18, 14)) -> np.ndarray:
    """A small seeded picture ``(H, W, C)``, or ``(H, W)`` with one channel."""
    values = np.random.default_rng(5).integers(0, 256, (*shape, channels)).astype(np.uint8)
    return values[..., 0] if channels == 1 else values


def encoded(array: np.ndarray, form: str, **options: Any) -> bytes:
    """A picture as the bytes of a file that Pillow writes."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, form, **options)
    return stream.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    """A TIFF file that tifffile writes."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


def volume(dtype: type = np.int16, shape: tuple[int, ...] = (4, 7, 6)) -> np.ndarray:
    """A small seeded volume ``(D, H, W)``."""
    return np.random.default_rng(6).integers(0, 100, shape).astype(dtype)


def volume_bytes(folder: Path, suffix: str, array: np.ndarray | None = None, *, packed: bool = False) -> bytes:
    """A volume file that SimpleITK writes, as bytes."""
    path = folder / f"made{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(volume() if array is None else array), str(path), packed)
    data = path.read_bytes()
    path.unlink()
    return data


def nifti(
    sides: Sequence[int] = (6, 7, 4), *, axes: int | None = None, kind: int = 4, bits: int = 16,
    steps: Sequence[float] = (1, 1, 1), offset: float = 352.0, magic: bytes = b"n+1\0", data: bytes | None = None,
) -> bytes:  # fmt: skip
    """A NIfTI-1 file by its header's entries, with 336 bytes of voxels by default."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    rest = [1] * (7 - len(sides))
    struct.pack_into("<8h", header, 40, len(sides) if axes is None else axes, *sides, *rest)
    struct.pack_into("<2h", header, 70, kind, bits)
    struct.pack_into("<8f", header, 76, 1.0, *steps, *[0.0] * (7 - len(steps)))
    struct.pack_into("<3f", header, 108, offset, 1.0, 0.0)
    header[344:348] = magic
    return bytes(header) + (bytes(range(168)) * 2 if data is None else data)


def meta(*, data: bytes = bytes(range(64)), last: str = "LOCAL", **fields: str) -> bytes:
    """A MetaImage file of 4 x 4 x 4 bytes by its header's lines."""
    lines = {"ObjectType": "Image", "NDims": "3", "DimSize": "4 4 4", "ElementType": "MET_UCHAR"}
    lines |= {"ElementSpacing": "1 1 1", **fields}
    text = "".join(f"{key} = {value}\n" for key, value in lines.items())
    return f"{text}ElementDataFile = {last}\n".encode() + data


def nrrd(*, data: bytes = bytes(range(64)), **fields: str) -> bytes:
    """An NRRD file of 4 x 4 x 4 bytes by its header's lines; ``data_file`` is the key "data file"."""
    lines = {"type": "uchar", "dimension": "3", "sizes": "4 4 4", "encoding": "raw", **fields}
    text = "".join(f"{key.replace('_', ' ')}: {value}\n" for key, value in lines.items())
    return f"NRRD0004\n{text}\n".encode() + data


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of these chunks, checksums right."""
    packed = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> tuple[bytes, bytes]:
    """The first chunk of a PNG file."""
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)


def reading(name: str, data: bytes) -> Callable[[Path], Callable[[], Any]]:
    """For ``Bad.make``: write the file, then read it."""

    def make(folder: Path) -> Callable[[], Any]:
        (folder / name).write_bytes(data)
        return lambda: read_image(folder / name).array

    return make


def equals(expected: np.ndarray) -> Callable[[Any], None]:
    """For ``Bad.check``: the same dtype, shape and values."""

    def check(found: np.ndarray) -> None:
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)

    return check


def cut(data: bytes, parts: int) -> dict[int, bytes]:
    """The first bytes of a file, at evenly spread lengths from 0 to all but one."""
    return {int(n): data[: int(n)] for n in np.linspace(0, len(data) - 1, parts)}
