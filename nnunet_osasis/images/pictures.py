"""Pictures (PNG, JPEG, BMP) in and out, upright: PNG pixels through imagecodecs, all else through Pillow.

Pillow leaves missing rows of a PNG file black and cuts 16-bit color to 8 bits; imagecodecs refuses and keeps them.
"""

from __future__ import annotations

import logging
import math
import struct
import warnings
import zlib
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

BACK = {6: 8, 8: 6}
"""Orientations whose turn another one undoes; every other one undoes itself."""

ALPHA_KEY, INDEX_KEY = "alpha", "indices"
"""Keys, in ``LoadedImage.kept``, of planes ``(H, W)`` that only masks need: varying opacity, indices of a palette."""

ALPHA = {"LA": "L", "La": "L", "RGBA": "RGB", "RGBa": "RGB"}
"""Pillow's modes with alpha, and those without that their pixels become."""

PNG_HEAD = 33
"""Length of a PNG file's signature and first chunk; the tags come behind."""

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
    """Read ``(C, H, W)`` with C 1 or 3, upright, and what is kept beside: profile, resolution, tag, planes of masks.

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
        orientation = opened.getexif().get(ORIENTATION)
        alpha = opened.getchannel("A") if "A" in opened.getbands() else None
        planes = {ALPHA_KEY: alpha, INDEX_KEY: opened if opened.mode == "P" else None}
        stored = {key: np.array(plane) for key, plane in planes.items() if plane is not None}
        pixels, kept = _channels_first(_read_flat(opened)), _kept(opened, orientation)
    pixels = np.ascontiguousarray(upright(pixels, orientation))
    return pixels, kept | mask_planes(pixels, stored, orientation)


def mask_planes(array: np.ndarray, planes: Mapping[str, np.ndarray], orientation: object) -> dict[str, np.ndarray]:
    """Return, upright, an opacity that varies and the indices of a palette of colors; grays say what they mean."""
    colored = not (array == array[:1]).all()
    says = {ALPHA_KEY: lambda plane: bool((plane != plane.flat[0]).any()), INDEX_KEY: lambda plane: colored}
    return {key: np.ascontiguousarray(upright(plane, orientation)) for key, plane in planes.items() if says[key](plane)}


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
    planes = {INDEX_KEY: np.array(opened)} if opened.mode == "P" else {}
    if pixels.ndim == 3:  # alpha is not an image channel of ours
        if pixels.shape[-1] in (2, 4):
            planes[ALPHA_KEY] = pixels[..., -1]
        pixels = pixels[..., 0] if pixels.shape[-1] == 2 else pixels[..., :3]
    array = np.ascontiguousarray(upright(_channels_first(pixels), orientation))
    return array, _kept(opened, orientation) | mask_planes(array, planes, orientation)


def _read_flat(opened: Image.Image) -> np.ndarray:
    picture = opened
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
    """Return profile, resolution and orientation as stored; a profile of CMYK says nothing of the RGB made of it."""
    kept: dict[str, Any] = {}
    dpi, profile = opened.info.get("dpi"), opened.info.get("icc_profile")
    if isinstance(profile, bytes) and profile and opened.mode != "CMYK":
        kept["icc_profile"] = profile
    if isinstance(dpi, tuple) and len(dpi) == 2 and all(math.isfinite(v) and 0 < v < 1e6 for v in map(float, dpi)):
        kept["dpi"] = tuple(float(v) for v in dpi)
    return kept | orientation_entry(orientation)


def orientation_entry(orientation: object) -> dict[str, Any]:
    """Return what ``LoadedImage.kept`` says about a tag that turned the pixels."""
    return {ORIENTATION_KEY: orientation} if orientation in range(2, 9) else {}


def write_picture(array: np.ndarray, path: Path, kept: Mapping[str, Any]) -> None:
    """Write ``(C, H, W)``, C 1 or 3, 8 or 16 bit; BMP files and 16-bit color keep no profile.

    Pixels are turned back to how their source stores them and get its tag, so that they lie as its mask does for
    those who follow the tag and for those who do not.
    """
    from PIL import Image

    orientation = kept.get(ORIENTATION_KEY, 1)
    array = upright(array, BACK.get(orientation, orientation))
    tags = Image.Exif()
    if orientation != 1:
        tags[ORIENTATION] = orientation
    pixels = np.ascontiguousarray(array[0] if len(array) == 1 else np.moveaxis(array, 0, -1))
    if pixels.ndim == 3 and pixels.dtype == np.uint16:
        import imagecodecs

        data = imagecodecs.png_encode(pixels)
        path.write_bytes(data[:PNG_HEAD] + (_exif_chunk(tags) if tags else b"") + data[PNG_HEAD:])
        return
    options = {key: kept[key] for key in ("icc_profile", "dpi") if key in kept}
    if tags:
        options["exif"] = tags
    Image.fromarray(pixels).save(path, **options)


def _exif_chunk(tags: Image.Exif) -> bytes:
    chunk = b"eXIf" + tags.tobytes().removeprefix(b"Exif\0\0")
    return struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
