"""TIFF pictures and stacks in and out, through tifffile, upright and in the sense of their colour tags."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.headers import check_size
from nnunet_osasis.images.pictures import ORIENTATION, TURNED, upright

ESSENTIAL = frozenset({256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338})
"""Tags without which pixels mean something else; tifffile goes on without those it cannot read."""

FIRST_PIXEL = 8
"""Bytes of a TIFF file's own header; no pixels lie before."""

REDUCED = 1
"""The bit of NewSubfileType that marks a small copy of another page."""

COLOURS = {"MINISBLACK": 1, "MINISWHITE": 1, "PALETTE": 1, "RGB": 3, "SEPARATED": 4}


def read_tiff(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """``(C, H, W)``, or ``(C, D, H, W)`` of a stack of equal pages, and what :func:`write_tiff` keeps.

    Palettes become colour, alpha is dropped, CMYK becomes RGB, white-is-zero is inverted, black and white becomes 0
    and 255. Raises ``OsasisError`` for several different pictures and for other colour spaces; else what tifffile
    raises.
    """
    import tifffile

    with tifffile.TiffFile(path) as opened:
        series = opened.series[0]
        if any(not one.keyframe.subfiletype & REDUCED for one in opened.series[1:]):
            raise OsasisError(
                "A TIFF file must hold one picture, or a stack of equal ones",
                found=f"{len(opened.series)} different ones in {path}",
                remedy="Split it.",
            )
        page: Any = series.keyframe
        _require_tags(opened, page, path)
        check_size(series.shape, path)
        check_size(page.chunks, path)
        array = _meaning(_channels_first(series.asarray(), series.axes), page, path)
        tag = page.tags.get(ORIENTATION)
        orientation = None if tag is None else tag.value
        kept = _kept(page, orientation)
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    return np.ascontiguousarray(upright(array, orientation)), kept


def _require_tags(opened: Any, page: Any, path: Path) -> None:
    """Refuse a page that says more than tifffile understood."""
    layout, stream = opened.tiff, opened.filehandle
    stream.seek(page.offset)
    count = struct.unpack(layout.tagnoformat, stream.read(layout.tagnosize))[0]
    entries = stream.read(count * layout.tagsize)
    codes = {
        struct.unpack_from(layout.byteorder + "H", entries, at)[0] for at in range(0, len(entries) - 1, layout.tagsize)
    }
    known = {tag.code for tag in page.tags}
    places = zip(page.dataoffsets, page.databytecounts, strict=False)
    inside_header = any(size > 0 and at < FIRST_PIXEL for at, size in places)
    if len(entries) < count * layout.tagsize or (codes & ESSENTIAL) - known or inside_header:
        raise ValueError(f"damaged tags in {path.name}")


def _channels_first(array: np.ndarray, axes: str) -> np.ndarray:
    """Samples, or else an axis named C, in front; without either a new axis."""
    at = axes.find("S") if "S" in axes else axes.find("C")
    return array[None] if at < 0 else np.moveaxis(array, at, 0)


def _meaning(array: np.ndarray, page: Any, path: Path) -> np.ndarray:
    """Stored numbers to intensities, by the photometric interpretation."""
    kind = "MINISBLACK" if page.photometric is None else page.photometric.name
    if kind == "YCBCR" and page.compression.name in ("JPEG", "OJPEG"):
        kind = "RGB"  # the decoder has converted it
    if kind not in COLOURS:
        raise OsasisError(
            "The colours of a TIFF file must be known",
            found=f"{kind.lower()} in {path}",
            remedy="Save it as grey or RGB.",
        )
    wanted, extra = COLOURS[kind], list(page.extrasamples)
    if extra and all(one in (1, 2) for one in extra) and len(array) == wanted + len(extra):
        array = array[:wanted]  # alpha is not an image channel of ours
    one_bit = page.bitspersample == 1
    if kind in ("MINISWHITE", "PALETTE") and len(array) != 1:
        raise OsasisError(
            f"A TIFF file of the kind {kind.lower()} has one sample",
            found=f"{len(array)} in {path}",
            remedy="Save it as grey levels or RGB.",
        )
    if kind == "PALETTE":
        palette = np.asarray(page.colormap)
        return np.asarray((palette >> 8 if palette.max() > 255 else palette).astype(np.uint8)[:, array[0]])
    if kind == "SEPARATED":
        return _from_cmyk(array, path)
    if kind == "MINISWHITE":
        if array.dtype.kind not in "ub":
            raise OsasisError(
                "White-is-zero TIFF files must hold unsigned numbers",
                found=f"{array.dtype} in {path}",
                remedy="Save it as grey levels or RGB.",
            )
        array = (
            ~array if array.dtype == bool else (2**page.bitspersample - 1 - array.astype(np.int64)).astype(array.dtype)
        )
    return array.astype(np.uint8) * np.uint8(255) if one_bit else array


def _from_cmyk(array: np.ndarray, path: Path) -> np.ndarray:
    if array.dtype != np.uint8 or len(array) != 4:
        raise OsasisError(
            "CMYK must be four channels of 8 bit",
            found=f"{array.dtype}, {len(array)} in {path}",
            remedy="Save it as grey levels or RGB.",
        )
    light = 255 - array.astype(np.int64)
    return np.rint(light[:3] * light[3:] / 255).astype(np.uint8)


def _kept(page: Any, orientation: object) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    if isinstance(page.iccprofile, bytes) and page.photometric is not None and page.photometric.name != "SEPARATED":
        kept["iccprofile"] = page.iccprofile
    if "XResolution" in page.tags and "YResolution" in page.tags:
        across, down = page.resolution
        kept["resolution"] = (down, across) if orientation in TURNED else (across, down)
        kept["resolutionunit"] = page.resolutionunit
    return kept


def write_tiff(array: np.ndarray, path: Path, kept: Mapping[str, Any]) -> None:
    """Write ``(C, H, W)`` or ``(C, D, H, W)``, uncompressed: one channel as grey, three as RGB, others as samples."""
    import tifffile

    channels = len(array)
    values = array[0] if channels == 1 else np.ascontiguousarray(np.moveaxis(array, 0, -1))
    options: dict[str, Any] = dict(kept)
    if channels > 1:
        options["planarconfig"] = "contig"
    tifffile.imwrite(path, values, photometric="rgb" if channels == 3 else "minisblack", **options)
