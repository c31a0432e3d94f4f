"""Masks beside restyled images: copied whole, and never written over."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from specimens import draw

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.images.io import read_image
from nnunet_osasis.stylizer.archive.run import stylize_folder


@pytest.mark.parametrize("output", ["masks", "."])
def test_results_are_never_written_where_the_masks_are(
    stylizer: OSASISStylizer, image_folder: Path, tmp_path: Path, output: str
) -> None:
    for name in ("images", "masks"):
        shutil.copytree(image_folder / name, tmp_path / name)
    before = {path.name: path.read_bytes() for path in (tmp_path / "masks").iterdir()}
    with pytest.raises(OsasisError, match="another folder than the inputs"):
        stylize_folder(
            stylizer, tmp_path / "images", tmp_path / output, masks=tmp_path / "masks", gated=False, progress=False
        )
    assert {path.name: path.read_bytes() for path in (tmp_path / "masks").iterdir()} == before


def test_a_mask_of_two_files_is_copied_with_both(stylizer: OSASISStylizer, tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    volume = np.stack([draw(i) for i in range(3)])  # (D, C, H, W)
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.moveaxis(volume, 1, -1)), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "images/a.mhd"))
    mask = sitk.GetImageFromArray((volume[:, 0] > 150).astype(np.uint8))
    sitk.WriteImage(mask, str(tmp_path / "masks/a.mhd"))
    options = {"masks": tmp_path / "masks", "gated": False, "progress": False}
    assert stylize_folder(stylizer, tmp_path / "images", tmp_path / "out", **options) == 1
    copied = read_image(tmp_path / "out/masks/a.mhd").array
    assert np.array_equal(copied, read_image(tmp_path / "masks/a.mhd").array)
    assert stylize_folder(stylizer, tmp_path / "images", tmp_path / "out", **options) == 0
