"""Files of published datasets that nobody else here reads: GIF masks, PPM pictures, gzipped or not."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.image_io import LoadedImage, check_array, read_image

OLD_SUFFIXES = (".gif", ".ppm", ".pgm", ".ppm.gz", ".pgm.gz")


def read_any(path: Path) -> LoadedImage:
    """``(C, H, W)`` or ``(C, D, H, W)`` as :func:`nnunet_osasis.image_io.read_image`, also of GIF and PPM files.

    Raises ``OsasisError`` for what cannot be read.
    """
    if not path.name.lower().endswith(OLD_SUFFIXES):
        return read_image(path)
    from PIL import Image

    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            grey = opened.mode in ("1", "L", "I;16", "I") or _is_grey_palette(opened)
            array = np.array(opened.convert("L" if grey else "RGB"))
    except (OSError, EOFError, SyntaxError, ValueError) as error:
        raise OsasisError(
            "The image must be readable", found=f"{path}: {error}", remedy="Replace the file or leave it out."
        ) from error
    array = array[None] if array.ndim == 2 else np.ascontiguousarray(np.moveaxis(array, -1, 0))
    check_array(array, name=str(path))
    return LoadedImage(array, path)


def _is_grey_palette(picture: object) -> bool:
    """DRIVE's GIF masks are palette pictures of black and white."""
    palette = picture.getpalette("RGB") if getattr(picture, "mode", "") == "P" else None  # type: ignore[attr-defined]
    if palette is None:
        return False
    colours = np.asarray(palette).reshape(-1, 3)
    return bool((np.ptp(colours, axis=1) == 0).all())
