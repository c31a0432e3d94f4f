"""Pictures (PNG, JPEG, BMP) in and out, upright, through Pillow; 16-bit colour, which it cannot, through SimpleITK.

Whether a PNG file holds all rows it announces: Pillow leaves those that are missing black, and says nothing.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_osasis.errors import OsasisError

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "BMP")
"""What is opened under any of these suffixes. Pillow knows many more formats; one of them starts Ghostscript."""

ORIENTATION = 274

ALPHA = {"LA": "L", "La": "L", "RGBA": "RGB", "RGBa": "RGB"}

DEEP_COLOUR = {2: 3, 4: 1, 6: 3}
"""PNG's colour types that Pillow opens with 8 of their 16 bits: their channels without alpha."""


def upright(array: np.ndarray, orientation: object) -> np.ndarray:
    """Turn ``(..., H, W)`` as EXIF's orientation 1 to 8 says (a view); anything else changes nothing."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, -2, -1)
    if orientation in (3, 4, 7, 8):
        array = array[..., ::-1, :]
    if orientation in (2, 3, 6, 7):
        array = array[..., ::-1]
    return array


def read_picture(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """``(C, H, W)`` with C 1 or 3, upright, and what :func:`write_picture` keeps (``icc_profile``, ``dpi``).

    Palettes become colour, alpha is dropped, CMYK becomes RGB, black and white becomes 0 and 255. Raises
    ``OsasisError`` for animations; else what Pillow raises.
    """
    from PIL import Image

    with Image.open(path, formats=FORMATS) as opened:
        if opened.format == "PNG" and getattr(opened, "n_frames", 1) > 1:
            raise OsasisError("A picture must be one picture", found=f"an animation in {path}", remedy="Take a frame.")
        if opened.format == "PNG":
            require_all_rows(path)
        kept = _kept(opened)
        if opened.format == "PNG" and (channels := _deep_colour(path)):
            array = upright(_read_deep(path)[:channels], opened.getexif().get(ORIENTATION))
            return np.ascontiguousarray(array), kept
        array = _read_flat(opened)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(np.moveaxis(array, -1, 0)), kept


def _kept(opened: Image.Image) -> dict[str, Any]:
    """Profile and resolution; a profile of CMYK says nothing about the RGB that is made of it."""
    kept: dict[str, Any] = {}
    dpi, profile = opened.info.get("dpi"), opened.info.get("icc_profile")
    if isinstance(profile, bytes) and profile and opened.mode != "CMYK":
        kept["icc_profile"] = profile
    if isinstance(dpi, tuple) and len(dpi) == 2 and all(math.isfinite(v) and 0 < v < 1e6 for v in map(float, dpi)):
        turned = opened.getexif().get(ORIENTATION) in (5, 6, 7, 8)
        kept["dpi"] = tuple(float(v) for v in (reversed(dpi) if turned else dpi))
    return kept


def _read_flat(opened: Image.Image) -> np.ndarray:
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(opened) or opened
    if picture.mode in ("P", "PA", "CMYK"):
        picture = picture.convert("RGB")
    elif picture.mode in ALPHA:  # alpha is not an image channel of ours
        picture = picture.convert(ALPHA[picture.mode])
    elif picture.mode == "1":
        picture = picture.convert("L")
    return np.array(picture)


def _deep_colour(path: Path) -> int:
    """Channels of a PNG file of 16 bits that Pillow would cut to 8; 0 for all others."""
    with open(path, "rb") as stream:
        header = stream.read(26)
    return DEEP_COLOUR.get(header[25], 0) if len(header) == 26 and header[24] == 16 else 0


def _read_deep(path: Path) -> np.ndarray:
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path), imageIO="PNGImageIO")
    array = sitk.GetArrayFromImage(image)
    return np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None]


def write_picture(array: np.ndarray, path: Path, kept: Mapping[str, Any]) -> None:
    """Write ``(C, H, W)``, C 1 or 3, 8 or 16 bit; BMP files and 16-bit colour keep no profile."""
    from PIL import Image

    pixels = np.ascontiguousarray(array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1))
    if pixels.ndim == 3 and pixels.dtype == np.uint16:
        import SimpleITK as sitk

        sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(path), imageIO="PNGImageIO")
        return
    options = {key: kept[key] for key in ("icc_profile", "dpi") if key in kept}
    Image.fromarray(pixels).save(path, **options)


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
