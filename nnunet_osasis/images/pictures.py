"""Pictures (PNG, JPEG, BMP) in and out, upright: PNG pixels through imagecodecs, all else through Pillow.

Pillow leaves missing rows of a PNG file black and cuts 16-bit color to 8 bits; imagecodecs refuses and keeps them.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.headers import check_size, refuse

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "BMP")
"""Formats that are opened under any of these suffixes. Pillow knows many more; one of them starts Ghostscript."""

ORIENTATION = 274
"""Code of EXIF's and TIFF's orientation tag."""

ORIENTATION_KEY = "orientation"
"""Key, in ``LoadedImage.kept``, of an orientation tag that the pixels were turned by."""

TURNED = (5, 6, 7, 8)
"""Orientations that swap height and width."""

ALPHA = {"LA": "L", "La": "L", "RGBA": "RGB", "RGBa": "RGB"}
"""Pillow's modes with alpha, and those without that their pixels become."""

EXIF_MARKS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""Bytes of every PNG file that holds an orientation; Pillow decodes the whole picture to look behind its pixels."""

warnings.filterwarnings("ignore", message="Image size .* exceeds limit")  # Pillow's first one; ours is above it
logging.getLogger("imagecodecs").setLevel(logging.ERROR)  # libpng's remarks on profiles: a line for every picture


def upright(array: np.ndarray, orientation: object) -> np.ndarray:
    """Turn ``(..., H, W)`` by EXIF's orientation, 1 to 8 (a view); any other value changes nothing."""
    if orientation in TURNED:
        array = np.swapaxes(array, -2, -1)
    if orientation in (3, 4, 7, 8):
        array = array[..., ::-1, :]
    if orientation in (2, 3, 6, 7):
        array = array[..., ::-1]
    return array


def read_picture(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Read ``(C, H, W)`` with C 1 or 3, upright, and what :func:`write_picture` keeps (``icc_profile``, ``dpi``).

    Palettes become color, alpha is dropped, CMYK becomes RGB, black and white becomes 0 and 255.

    Raises:
        OsasisError: an animation, more values than allowed, or a damaged PNG file.
        Exception: whatever Pillow and imagecodecs raise.
    """
    from PIL import Image

    try:
        opening = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise OsasisError(
            "A PNG, JPEG or BMP picture may have some 178 million pixels at most",
            found=f"{error} in {path}",
            remedy="Save it as TIFF.",
        ) from error
    with opening as opened:
        check_size((*opened.size, len(opened.getbands())), path)
        if opened.format == "PNG":
            return _read_png(opened, path)
        pixels = _read_flat(opened)
        kept = _kept(opened, opened.getexif().get(ORIENTATION))
    return _channels_first(pixels), kept


def values_in(path: Path) -> int:
    """Return the number of values a picture's header announces; 0 for what is no picture."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as opened:
            return math.prod(opened.size) * len(opened.getbands())
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # reading it says what is wrong
        return 0


def _read_png(opened: Image.Image, path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    import imagecodecs

    if getattr(opened, "n_frames", 1) > 1:
        raise OsasisError("A picture must be one picture", found=f"an animation in {path}", remedy="Take a frame.")
    data = path.read_bytes()
    try:
        pixels = imagecodecs.png_decode(data)
    except UnicodeDecodeError as error:  # libpng's message quotes the damaged name of a chunk
        raise refuse(path, "damaged or truncated") from error
    orientation = opened.getexif().get(ORIENTATION) if any(mark in data for mark in EXIF_MARKS) else None
    if pixels.ndim == 3:  # alpha is not an image channel of ours
        pixels = pixels[..., 0] if pixels.shape[-1] == 2 else pixels[..., :3]
    return np.ascontiguousarray(upright(_channels_first(pixels), orientation)), _kept(opened, orientation)


def _read_flat(opened: Image.Image) -> np.ndarray:
    from PIL import ImageOps

    picture = ImageOps.exif_transpose(opened) or opened
    if picture.mode in ("P", "PA", "CMYK"):
        picture = picture.convert("RGB")
    elif picture.mode in ALPHA:
        picture = picture.convert(ALPHA[picture.mode])
    elif picture.mode == "1":
        picture = picture.convert("L")
    return np.array(picture)


def _channels_first(pixels: np.ndarray) -> np.ndarray:
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def _kept(opened: Image.Image, orientation: object) -> dict[str, Any]:
    """Return profile, resolution and orientation; a profile of CMYK says nothing about the RGB made of it."""
    kept: dict[str, Any] = {}
    dpi, profile = opened.info.get("dpi"), opened.info.get("icc_profile")
    if isinstance(profile, bytes) and profile and opened.mode != "CMYK":
        kept["icc_profile"] = profile
    if isinstance(dpi, tuple) and len(dpi) == 2 and all(math.isfinite(v) and 0 < v < 1e6 for v in map(float, dpi)):
        kept["dpi"] = tuple(float(v) for v in (reversed(dpi) if orientation in TURNED else dpi))
    return kept | orientation_entry(orientation)


def orientation_entry(orientation: object) -> dict[str, Any]:
    """Return what ``LoadedImage.kept`` says about a tag that turned the pixels; no writer puts it back."""
    return {ORIENTATION_KEY: orientation} if orientation in range(2, 9) else {}


def write_picture(array: np.ndarray, path: Path, kept: Mapping[str, Any]) -> None:
    """Write ``(C, H, W)``, C 1 or 3, 8 or 16 bit; BMP files and 16-bit color keep no profile."""
    from PIL import Image

    pixels = np.ascontiguousarray(array[0] if len(array) == 1 else np.moveaxis(array, 0, -1))
    if pixels.ndim == 3 and pixels.dtype == np.uint16:
        import imagecodecs

        path.write_bytes(imagecodecs.png_encode(pixels))
        return
    options = {key: kept[key] for key in ("icc_profile", "dpi") if key in kept}
    Image.fromarray(pixels).save(path, **options)
