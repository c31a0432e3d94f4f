"""TIFF pictures and stacks in and out, through tifffile, upright and in the sense of their color tags."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.headers import check_size
from nnunet_osasis.images.pictures import ORIENTATION, ORIENTATION_KEY, TURNED, orientation_entry, upright

ESSENTIAL = frozenset({256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338})
"""Codes of tags without which pixels mean something else; tifffile goes on without those it cannot read."""

HEADER_BYTES = 8
"""Length of a TIFF file's own header; no pixels lie in it."""

REDUCED = 1
"""Bit of the tag NewSubfileType that marks a small copy of another page."""

COLORS = {"MINISBLACK": 1, "MINISWHITE": 1, "PALETTE": 1, "RGB": 3, "SEPARATED": 4}
"""Samples of the color spaces that are read, without extra ones."""

ALPHA = (1, 2)
"""Codes of extra samples that are alpha."""


def read_tiff(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Read ``(C, H, W)``, or ``(C, D, H, W)`` of a stack of equal pages, and what :func:`write_tiff` keeps.

    Palettes become color, alpha is dropped, CMYK becomes RGB, white-is-zero is inverted, black and white becomes 0
    and 255.

    Raises:
        OsasisError: several different pictures, another color space, or more values than allowed.
        Exception: whatever tifffile raises.
    """
    import tifffile

    with tifffile.TiffFile(path) as opened:
        series = opened.series[0]
        if any(not other.keyframe.subfiletype & REDUCED for other in opened.series[1:]):
            raise OsasisError(
                "A TIFF file must hold one picture, or a stack of equal ones",
                found=f"{len(opened.series)} different ones in {path}",
                remedy="Split it.",
            )
        page: Any = series.keyframe
        _require_tags(opened, page, path)
        check_size(series.shape, path)
        check_size(page.chunks, path)
        array = _to_intensities(_channels_first(series.asarray(), series.axes), page, path)
        tag = page.tags.get(ORIENTATION)
        orientation = None if tag is None else tag.value
        kept = _kept(page, orientation)
        if "C" in series.axes and "S" not in series.axes and orientation in (None, 1):
            kept |= {"metadata": {"axes": series.axes}, "ome": opened.is_ome, "imagej": opened.is_imagej}
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    return np.ascontiguousarray(upright(array, orientation)), kept


def _require_tags(opened: Any, page: Any, path: Path) -> None:
    """Refuse a page with essential tags that tifffile did not understand."""
    layout, stream = opened.tiff, opened.filehandle
    stream.seek(page.offset)
    count = struct.unpack(layout.tagnoformat, stream.read(layout.tagnosize))[0]
    entries = stream.read(count * layout.tagsize)
    starts = range(0, len(entries) - 1, layout.tagsize)
    codes = {struct.unpack_from(layout.byteorder + "H", entries, start)[0] for start in starts}
    known = {tag.code for tag in page.tags}
    places = zip(page.dataoffsets, page.databytecounts, strict=False)
    inside_header = any(size > 0 and start < HEADER_BYTES for start, size in places)
    if len(entries) < count * layout.tagsize or (codes & ESSENTIAL) - known or inside_header:
        raise ValueError(f"damaged tags in {path.name}")


def _channels_first(array: np.ndarray, axes: str) -> np.ndarray:
    """Move samples, or else an axis named C, to the front; without either add an axis."""
    axis = axes.find("S") if "S" in axes else axes.find("C")
    return array[None] if axis < 0 else np.moveaxis(array, axis, 0)


def _to_intensities(array: np.ndarray, page: Any, path: Path) -> np.ndarray:
    """Turn stored numbers into intensities, by the photometric interpretation."""
    kind = "MINISBLACK" if page.photometric is None else page.photometric.name
    if kind == "YCBCR" and page.compression.name in ("JPEG", "OJPEG"):
        kind = "RGB"  # the decoder has converted it
    if kind == "MINISWHITE" and page.bitspersample == 1 and str(page.software).startswith("tifffile"):
        kind = "MINISBLACK"  # a mask of bools: tifffile stores True as 1 and tags it so nevertheless
    if kind not in COLORS:
        raise OsasisError(
            "The colors of a TIFF file must be known",
            found=f"{kind.lower()} in {path}",
            remedy="Save it as gray or RGB.",
        )
    expected, extra = COLORS[kind], list(page.extrasamples)
    if extra and all(code in ALPHA for code in extra) and len(array) == expected + len(extra):
        array = array[:expected]  # alpha is not an image channel of ours
    if kind in ("MINISWHITE", "PALETTE") and len(array) != 1:
        raise _not_as_expected(f"A TIFF file of the kind {kind.lower()} has one sample", f"{len(array)} in {path}")
    if kind == "PALETTE":
        palette = np.asarray(page.colormap)
        return np.asarray((palette >> 8 if palette.max() > 255 else palette).astype(np.uint8)[:, array[0]])
    if kind == "SEPARATED":
        return _from_cmyk(array, path)
    if kind == "MINISWHITE":
        if array.dtype.kind not in "ub":
            raise _not_as_expected("White-is-zero TIFF files must hold unsigned numbers", f"{array.dtype} in {path}")
        if array.dtype == bool:
            array = ~array
        else:
            array = (2**page.bitspersample - 1 - array.astype(np.int64)).astype(array.dtype)
    return array.astype(np.uint8) * np.uint8(255) if page.bitspersample == 1 else array


def _not_as_expected(rule: str, found: str) -> OsasisError:
    return OsasisError(rule, found=found, remedy="Save it as gray levels or RGB.")


def _from_cmyk(array: np.ndarray, path: Path) -> np.ndarray:
    if array.dtype != np.uint8 or len(array) != 4:
        raise _not_as_expected("CMYK must be four channels of 8 bit", f"{array.dtype}, {len(array)} in {path}")
    light = 255 - array.astype(np.int64)
    return np.rint(light[:3] * light[3:] / 255).astype(np.uint8)


def _kept(page: Any, orientation: object) -> dict[str, Any]:
    kept = orientation_entry(orientation)
    if isinstance(page.iccprofile, bytes) and page.photometric is not None and page.photometric.name != "SEPARATED":
        kept["iccprofile"] = page.iccprofile
    if "XResolution" in page.tags and "YResolution" in page.tags:
        across, down = page.resolution
        kept["resolution"] = (down, across) if orientation in TURNED else (across, down)
        kept["resolutionunit"] = page.resolutionunit
    return kept


def write_tiff(array: np.ndarray, path: Path, kept: Mapping[str, Any]) -> None:
    """Write ``(C, H, W)`` or ``(C, D, H, W)``, uncompressed: one channel as gray, three as RGB, others as samples.

    Channels that were pages of their own become pages again, at their place among the axes.
    """
    import tifffile

    options = {key: value for key, value in kept.items() if key != ORIENTATION_KEY}
    options["photometric"] = "minisblack"
    if axes := options.get("metadata", {}).get("axes", ""):
        slices = array[:, None] if array.ndim < len(axes) else array
        values = np.ascontiguousarray(np.moveaxis(slices, 0, axes.index("C")))
    elif len(array) == 1:
        values = array[0]
    else:
        values = np.ascontiguousarray(np.moveaxis(array, 0, -1))
        options["planarconfig"] = "contig"
        options["photometric"] = "rgb" if len(array) == 3 else "minisblack"
    tifffile.imwrite(path, values, **options)
