"""TIFF files come back with the axes, sizes of a pixel and orientation that they had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.io import files_of, read_image, write_like

MICRONS = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0} | {
    f"PhysicalSize{axis}Unit": "µm" for axis in "XYZ"
}
LAYOUTS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "OME, ZYX": ((5, 20, 24), {"ome": True, "metadata": {"axes": "ZYX", **MICRONS}}),
    "OME, one time": ((1, 2, 20, 24), {"ome": True, "metadata": {"axes": "TCYX", "Channel": {"Name": ["a<&>", "b"]}}}),
    "OME, CZYX": ((2, 5, 20, 24), {"ome": True, "metadata": {"axes": "CZYX"}}),
    "OME, ZCYX": ((5, 2, 20, 24), {"ome": True, "metadata": {"axes": "ZCYX"}}),
    "OME, color": ((20, 24, 3), {"ome": True, "metadata": {"axes": "YXS"}, "photometric": "rgb"}),
    "OME, pages of color": ((4, 20, 24, 3), {"ome": True, "metadata": {"axes": "ZYXS"}, "photometric": "rgb"}),
    "ImageJ, ZYX": ((5, 20, 24), {"imagej": True, "resolution": (2.0, 4.0), "metadata": {"axes": "ZYX", "spacing": 2.0,
                    "unit": "um"}}),
    "ImageJ, CYX": ((2, 20, 24), {"imagej": True, "metadata": {"axes": "CYX"}}),
    "ImageJ, ZCYX": ((5, 2, 20, 24), {"imagej": True, "metadata": {"axes": "ZCYX"}}),
    "pages of color": ((4, 20, 24, 3), {"photometric": "rgb"}),
    "planes of color": ((3, 20, 24), {"photometric": "rgb", "planarconfig": "separate"}),
    "stack of planes of color": ((5, 3, 20, 24), {"photometric": "rgb", "planarconfig": "separate"}),
    "two samples": ((20, 24, 2), {"photometric": "minisblack", "planarconfig": "contig"}),
    "axes of 1": ((1, 1, 20, 24), {"photometric": "minisblack"}),
    "BigTIFF": ((5, 20, 24), {"bigtiff": True, "photometric": "minisblack"}),
    "resolution": ((20, 24), {"resolution": (300.0, 150.0), "resolutionunit": "CENTIMETER"}),
    "turned": ((20, 24), {"extratags": [(274, "H", 1, 6, True)]}),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_result_has_its_sources_layout(name: str, tmp_path: Path) -> None:
    shape, options = LAYOUTS[name]
    dtype = np.uint8 if options.get("photometric") == "rgb" else np.uint16
    values = np.random.default_rng(0).integers(0, 250, shape).astype(dtype)
    path = tmp_path / ("a.ome.tif" if "ome" in options else "a.tif")
    tifffile.imwrite(path, values, **options)
    loaded = read_image(path)
    with (
        tifffile.TiffFile(path) as before,
        tifffile.TiffFile(write_like(loaded, loaded.array, tmp_path / f"b_{path.name}")) as after,
    ):
        assert (after.series[0].axes, after.series[0].shape) == (before.series[0].axes, before.series[0].shape)
        assert np.array_equal(after.asarray(), before.asarray())
        for fact in ("is_ome", "is_imagej", "is_bigtiff"):
            assert getattr(after, fact) == getattr(before, fact)
        assert after.pages[0].resolution == before.pages[0].resolution
        if "PhysicalSizeX" in options.get("metadata", {}):
            assert 'PhysicalSizeZ="2.0"' in after.ome_metadata and 'PhysicalSizeX="0.5"' in after.ome_metadata
        if "Channel" in options.get("metadata", {}):
            assert "a&lt;&amp;&gt;" in after.ome_metadata
        if before.is_imagej and "unit" in options["metadata"]:
            assert after.imagej_metadata["spacing"] == 2 and after.imagej_metadata["unit"] == "um"  # fmt: skip


@pytest.mark.parametrize("name", ["OME, ZYX", "ImageJ, ZYX"])
def test_a_stack_is_as_large_as_its_file_says(name: str, tmp_path: Path) -> None:
    shape, options = LAYOUTS[name]
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros(shape, np.uint16), **options)
    assert read_image(tmp_path / "a.ome.tif").spacing == pytest.approx((0.002, 0.00025, 0.0005))


def test_nnunets_spacing_beside_a_stack_is_read_and_goes_with_the_result(tmp_path: Path) -> None:
    path, beside = tmp_path / "case_0000.tif", tmp_path / "case.json"
    tifffile.imwrite(path, np.zeros((5, 20, 24), np.uint16), photometric="minisblack")
    assert read_image(path).spacing is None and files_of(path) == (path,)
    beside.write_text(json.dumps({"spacing": [3.0, 0.5, 0.4]}))
    loaded = read_image(path)
    assert loaded.spacing == (3.0, 0.5, 0.4) and files_of(path) == (path, beside)
    (tmp_path / "out").mkdir()
    write_like(loaded, loaded.array, tmp_path / "out/case_0000.tif")
    assert (tmp_path / "out/case.json").read_bytes() == beside.read_bytes()
    for damage in ({"spacing": [1, 2]}, {"spacing": [1, 2, "x"]}, {"spacing": [1, 2, -1]}):
        beside.write_text(json.dumps(damage))
        with pytest.raises(OsasisError, match=r"three positive numbers; got .*case\.json"):
            read_image(path)
    beside.write_text('{"shapes": []}')  # of another tool
    assert read_image(path).spacing is None


def test_four_planes_that_say_they_are_color_and_alpha_are_refused(tmp_path: Path) -> None:
    """tifffile writes a stack of four pages so as well, unless "photometric" is given: the last page would be lost."""
    planes = np.zeros((4, 20, 24), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", extrasamples=["unassalpha"]
    )
    with pytest.raises(OsasisError, match=r"a stack or a picture with alpha; got .*a\.tif"):
        read_image(tmp_path / "a.tif")
