"""Files of published datasets that nobody else here reads: GIF masks, PPM pictures, gzipped or not."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import LoadedImage, check_array
from nnunet_osasis.images.io import read_image

OLD_SUFFIXES = (".gif", ".ppm", ".pgm", ".ppm.gz", ".pgm.gz")

LARGEST = 512 * 2**20  # bytes of an unpacked file; Pillow opens pictures of about as many


def read_any(path: Path) -> LoadedImage:
    """``(C, H, W)`` or ``(C, D, H, W)`` as :func:`nnunet_osasis.images.io.read_image`, also of GIF and PPM files.

    Raises ``OsasisError`` for what cannot be read, and for pictures too large to be pictures.
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
                array = np.array(opened).astype(np.uint16)
            else:
                grey = opened.mode in ("1", "L") or _is_grey_palette(opened)
                array = np.array(opened.convert("L" if grey else "RGB"))
    except OsasisError:
        raise
    except Exception as error:  # decoders raise whatever their libraries do
        raise OsasisError(
            "The image must be readable", found=f"{path}: {error}", remedy="Replace the file or leave it out."
        ) from error
    array = array[None] if array.ndim == 2 else np.ascontiguousarray(np.moveaxis(array, -1, 0))
    check_array(array, name=str(path))
    return LoadedImage(array, path)


def _unpack(path: Path) -> bytes:
    """The content of a gzipped file, read no further than ``LARGEST``; a few bytes can unpack to any size."""
    with gzip.open(path) as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"more than {LARGEST // 2**20} MiB when unpacked")
    return data


def _is_grey_palette(picture: object) -> bool:
    """DRIVE's GIF masks are palette pictures of black and white."""
    palette = picture.getpalette("RGB") if getattr(picture, "mode", "") == "P" else None  # type: ignore[attr-defined]
    if palette is None:
        return False
    colours = np.asarray(palette).reshape(-1, 3)
    return bool((np.ptp(colours, axis=1) == 0).all())
