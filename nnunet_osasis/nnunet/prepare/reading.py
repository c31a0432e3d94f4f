"""Files of older published datasets that ``images.io`` does not read: GIF masks, PPM pictures, gzipped or not."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.headers import refuse
from nnunet_osasis.images.image import LoadedImage, check_array
from nnunet_osasis.images.io import read_image

OLD_SUFFIXES = (".gif", ".ppm", ".pgm", ".ppm.gz", ".pgm.gz")

MAX_BYTES = 512 * 2**20
"""Largest unpacked file, in bytes; Pillow opens pictures of about as many."""


def read_any(path: Path) -> LoadedImage:
    """Read an image as :func:`nnunet_osasis.images.io.read_image` does, also from GIF and PPM files.

    Raises:
        OsasisError: the file cannot be read, is an animation, or is too large to be a picture.
    """
    if not path.name.lower().endswith(OLD_SUFFIXES):
        return read_image(path)
    from PIL import Image

    try:
        data = _unpack(path) if path.name.lower().endswith(".gz") else path.read_bytes()
        with Image.open(io.BytesIO(data), formats=("GIF", "PPM")) as opened:
            if getattr(opened, "n_frames", 1) > 1:
                raise OsasisError(
                    "A picture must be one picture", found=f"an animation in {path}", remedy="Take a frame."
                )
            if opened.mode in ("I", "I;16"):  # 16 bits; Pillow would clip them to 8
                pixels = np.array(opened).astype(np.uint16)
            else:
                gray = opened.mode in ("1", "L") or _has_gray_palette(opened)
                pixels = np.array(opened.convert("L" if gray else "RGB"))
    except OsasisError:
        raise
    except Exception as error:  # decoders raise whatever their libraries do
        raise refuse(path, str(error)) from error
    array = pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    check_array(array, name=str(path))
    return LoadedImage(array, path)


def _unpack(path: Path) -> bytes:
    """Return the content of a gzipped file, read no further than ``MAX_BYTES``: a few bytes can unpack to any size."""
    with gzip.open(path) as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES // 2**20} MiB when unpacked")
    return data


def _has_gray_palette(picture: object) -> bool:
    """Tell whether a palette holds grays only, as in DRIVE's black and white GIF masks."""
    palette = picture.getpalette("RGB") if getattr(picture, "mode", "") == "P" else None  # type: ignore[attr-defined]
    return palette is not None and bool((np.ptp(np.reshape(palette, (-1, 3)), axis=1) == 0).all())
