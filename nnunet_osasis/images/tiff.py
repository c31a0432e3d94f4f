"""TIFF pictures and stacks in and out, through tifffile, upright and in the sense of their color tags."""

from __future__ import annotations

import html
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.headers import check_size
from nnunet_osasis.images.image import Geometry
from nnunet_osasis.images.pictures import (
    ALPHA_KEY,
    BACK,
    INDEX_KEY,
    ORIENTATION,
    ORIENTATION_KEY,
    mask_planes,
    orientation_entry,
    upright,
)
from nnunet_osasis.runtime.records import read_json

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

SEPARATE = 2
"""Planar configuration of channels that are planes of their own."""

MAX_SPACING_BYTES = 2**16
"""Largest file that is taken for nnU-Net's spacing of a stack."""

UNITS = {
    "nm": 1e-6, "µm": 1e-3, "um": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3, "mm": 1.0,
    "millimeter": 1.0, "cm": 10.0, "inch": 25.4, "in": 25.4, "m": 1000.0,
}  # fmt: skip
"""Millimeters of the units of OME and ImageJ."""

IMAGEJ_FACTS = ("spacing", "unit", "finterval", "fps", "loop", "mode")
"""What an ImageJ file says about its stack and not about its values; axes are written anew."""


def read_tiff(path: Path) -> tuple[np.ndarray, Geometry | None, dict[str, Any]]:
    """Read ``(C, H, W)``, or ``(C, D, H, W)`` of a stack of equal pages, its geometry, what :func:`write_tiff` keeps.

    Palettes become color, alpha is dropped, CMYK becomes RGB, white-is-zero is inverted, black and white becomes 0
    and 255. A stack's geometry is its spacing, where OME, ImageJ or nnU-Net's file beside it state one; pictures have
    none.

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
        stored = _channels_first(series.asarray(), series.axes)
        array, alpha = _to_intensities(stored, page, path)
        tag = page.tags.get(ORIENTATION)
        orientation = None if tag is None else tag.value
        kept = _kept(opened, series, page) | orientation_entry(orientation)
        palette = page.photometric is not None and page.photometric.name == "PALETTE"
    array = np.ascontiguousarray(upright(array, orientation))
    planes = ({INDEX_KEY: stored[0]} if palette else {}) | ({} if alpha is None else {ALPHA_KEY: alpha})
    spacing = stack_spacing(path, kept) if array.ndim == 4 else None
    geometry = None if spacing is None else Geometry.of(spacing, np.zeros(3), np.eye(3))
    return array, geometry, kept | mask_planes(array, planes, orientation)


def spacing_file(path: Path) -> Path | None:
    """Return the file beside a TIFF stack that nnU-Net reads its spacing from, if there is one."""
    place = path.with_name(f"{re.sub(r'_[0-9]{4}$', '', path.stem)}.json")
    if not place.is_file() or place.stat().st_size > MAX_SPACING_BYTES:
        return None
    if b'"spacing"' not in place.read_bytes():  # annotations of another tool
        return None
    return place if "spacing" in read_json(place, what="The spacing beside a TIFF stack") else None


def stack_spacing(path: Path, kept: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Return the spacing of a stack along x, y and z in millimeters: nnU-Net's, OME's or ImageJ's; None if unknown.

    Raises:
        OsasisError: nnU-Net's file does not hold three positive numbers.
    """
    beside = spacing_file(path)
    if beside is not None:
        steps = read_json(beside, what="The spacing beside a TIFF stack")["spacing"]
        numbers = isinstance(steps, list) and all(type(step) in (int, float) for step in steps)
        if not (numbers and len(steps) == 3 and all(0 < step < math.inf for step in steps)):
            raise OsasisError("The spacing beside a TIFF stack must be three positive numbers", found=f"{beside}")
        return float(steps[2]), float(steps[1]), float(steps[0])
    facts = kept.get("metadata", {})
    if kept.get("ome"):
        each = [facts.get(f"PhysicalSize{axis}", 0) * UNITS.get(facts.get(f"PhysicalSize{axis}Unit", "µm"), 0)
                for axis in "XYZ"]  # fmt: skip
    else:
        across, down = kept.get("resolution", (0, 0))
        step = UNITS.get(str(facts.get("unit", "")).replace("\\u00B5", "µ"), 0)
        each = [step / across if across else 0, step / down if down else 0, step * facts.get("spacing", 0)]
    x, y, z = (float(value) for value in each)
    return (x, y, z) if all(0 < value < math.inf for value in (x, y, z)) else None


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
    """Move samples, or else an axis named C, to the front; without either add an axis. Other axes of 1 go."""
    axis = axes.find("S") if "S" in axes else axes.find("C")
    array = array[None] if axis < 0 else np.moveaxis(array, axis, 0)
    return array.reshape(len(array), *(side for side in array.shape[1:-2] if side > 1), *array.shape[-2:])


def _to_intensities(array: np.ndarray, page: Any, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Turn stored numbers into intensities, by the photometric interpretation; split off the first alpha channel."""
    alpha: np.ndarray | None = None
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
        if page.planarconfig == SEPARATE:  # tifffile also writes a stack of four pages so by default
            raise OsasisError(
                "It must be clear whether a TIFF file of four planes is a stack or a picture with alpha",
                found=f"planes of color and alpha in {path}",
                remedy="Save a stack with photometric='minisblack', a picture with its channels interleaved.",
            )
        array, alpha = array[:expected], array[expected]  # alpha is not an image channel of ours
    if kind in ("MINISWHITE", "PALETTE") and len(array) != 1:
        raise _not_as_expected(f"A TIFF file of the kind {kind.lower()} has one sample", f"{len(array)} in {path}")
    if kind == "PALETTE":
        palette = np.asarray(page.colormap)
        return (palette >> 8 if palette.max() > 255 else palette).astype(np.uint8)[:, array[0]], alpha
    if kind == "SEPARATED":
        return _from_cmyk(array, path), alpha
    if kind == "MINISWHITE":
        if array.dtype.kind not in "ub":
            raise _not_as_expected("White-is-zero TIFF files must hold unsigned numbers", f"{array.dtype} in {path}")
        if array.dtype == bool:
            array = ~array
        else:
            array = (2**page.bitspersample - 1 - array.astype(np.int64)).astype(array.dtype)
    return (array.astype(np.uint8) * np.uint8(255) if page.bitspersample == 1 else array), alpha


def _not_as_expected(rule: str, found: str) -> OsasisError:
    return OsasisError(rule, found=found, remedy="Save it as gray levels or RGB.")


def _from_cmyk(array: np.ndarray, path: Path) -> np.ndarray:
    if array.dtype != np.uint8 or len(array) != 4:
        raise _not_as_expected("CMYK must be four channels of 8 bit", f"{array.dtype}, {len(array)} in {path}")
    light = 255 - array.astype(np.int64)
    return np.rint(light[:3] * light[3:] / 255).astype(np.uint8)


def _kept(opened: Any, series: Any, page: Any) -> dict[str, Any]:
    """Return the options of tifffile's writer that give the result its source's axes, spacing, resolution, profile."""
    kept: dict[str, Any] = {"shape": series.shape, "axes": series.axes, "bigtiff": opened.is_bigtiff}
    if isinstance(page.iccprofile, bytes) and page.photometric is not None and page.photometric.name != "SEPARATED":
        kept["iccprofile"] = page.iccprofile
    if "XResolution" in page.tags and "YResolution" in page.tags:
        kept |= {"resolution": page.resolution, "resolutionunit": page.resolutionunit}
    if opened.is_ome:
        kept |= {"ome": True, "metadata": _ome_facts(opened.ome_metadata)}
    elif opened.is_imagej:
        facts = {key: value for key, value in (opened.imagej_metadata or {}).items() if key in IMAGEJ_FACTS}
        kept |= {"imagej": True, "metadata": facts}
    return kept


def _ome_facts(text: str) -> dict[str, Any]:
    """Return sizes of a pixel with their units and names of channels, as tifffile's writer takes them."""
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", text)
    facts: dict[str, Any] = {}
    for key, value in re.findall(
        r'\b(PhysicalSize[XYZ](?:Unit)?|TimeIncrement(?:Unit)?)="([^"]*)"', pixels[0] if pixels else ""
    ):
        facts[key] = html.unescape(value) if key.endswith("Unit") else float(value)
    if names := re.findall(r'<(?:\w+:)?Channel\b[^>]*\bName="([^"]*)"', text):
        facts["Channel"] = {"Name": [html.unescape(name) for name in names]}
    return facts


def write_tiff(array: np.ndarray, path: Path, kept: Mapping[str, Any]) -> None:
    """Write ``(C, H, W)`` or ``(C, D, H, W)``, uncompressed, with the axes and the orientation that the source has.

    Without a source of that many channels: one channel as gray, three as RGB, others as samples.
    """
    import tifffile

    names = ("iccprofile", "resolution", "resolutionunit", "bigtiff")
    options: dict[str, Any] = {name: kept[name] for name in names if name in kept}
    orientation = kept.get(ORIENTATION_KEY, 1)
    if orientation != 1:
        array = upright(array, BACK.get(orientation, orientation))
        options["extratags"] = [(ORIENTATION, "H", 1, orientation, True)]
    axes, shape = kept.get("axes", ""), kept.get("shape", ())
    samples = "S" in axes
    place = axes.find("S") if samples else axes.find("C")
    if math.prod(shape) == array.size and len(array) == (shape[place] if place >= 0 else 1):
        values = np.ascontiguousarray(
            np.moveaxis(
                array.reshape(len(array), *shape[:place], *shape[place + 1 :])
                if place >= 0
                else array.reshape(1, *shape),
                0,
                max(place, 0),
            )
        )
        values = values if place >= 0 else values[0]
        options["planarconfig"] = ("contig" if place == len(axes) - 1 else "separate") if samples else None
        if kept.get("ome") or kept.get("imagej") or (place >= 0 and not samples):
            options |= {name: True for name in ("ome", "imagej") if kept.get(name)}
            options["metadata"] = {"axes": axes, **kept.get("metadata", {})}
    else:
        samples = len(array) > 1
        values = np.ascontiguousarray(np.moveaxis(array, 0, -1)) if samples else array[0]
        options["planarconfig"] = "contig" if samples else None
    options["photometric"] = "rgb" if samples and len(array) == 3 else "minisblack"
    tifffile.imwrite(path, values, **options)
