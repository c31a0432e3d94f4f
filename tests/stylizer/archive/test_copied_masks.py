"""Masks beside restyled images: copied whole, and never written over."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image
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


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize(("suffix", "result"), [(".png", ".png"), (".jpg", ".png"), (".tif", ".tif")])
def test_result_and_mask_fit_as_stored_whatever_the_orientation_tag(
    stylizer: OSASISStylizer, tmp_path: Path, orientation: int, suffix: str, result: str
) -> None:
    """Also for readers that ignore the tag, as nnU-Net's do."""
    mask = np.zeros((32, 48), np.uint8)
    mask[3:12, 4:14] = 255
    picture = np.where(mask[..., None] > 0, (240, 60, 50), (70, 90, 80)).astype(np.uint8)
    tags = Image.Exif()
    tags[274] = orientation
    for name, array in (("images", picture), ("masks", mask)):
        (tmp_path / name).mkdir()
        if suffix == ".tif":
            extra = {"extratags": [(274, "H", 1, orientation, True)]}
            photometric = "rgb" if name == "images" else "minisblack"
            tifffile.imwrite(tmp_path / name / "a.tif", array, photometric=photometric, **extra)
        else:
            Image.fromarray(array).save(tmp_path / name / f"a{suffix}", exif=tags, quality=95)
    stylize_folder(
        stylizer, tmp_path / "images", tmp_path / "out", masks=tmp_path / "masks", gated=False, progress=False
    )
    read = tifffile.imread if result == ".tif" else lambda path: np.array(Image.open(path))
    made, copied = read(tmp_path / f"out/a{result}").astype(int), read(tmp_path / f"out/masks/a{suffix}") > 127
    red = made[..., 0] - made[..., 1]
    assert made.shape[:2] == copied.shape == (32, 48) and red[copied].min() > red[~copied].max()
    upright = read_image(tmp_path / f"out/a{result}").array.astype(int)
    lesion = read_image(tmp_path / f"out/masks/a{suffix}").array[0] > 127
    assert (upright[0] - upright[1])[lesion].min() > (upright[0] - upright[1])[~lesion].max()


def test_a_mask_in_another_order_of_voxels_is_written_on_its_images_grid(
    stylizer: OSASISStylizer, tmp_path: Path
) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    volume = np.ascontiguousarray(np.moveaxis(np.stack([draw(i) for i in range(3)]), 1, -1))
    image = sitk.GetImageFromArray(volume, isVector=True)
    image.SetSpacing((0.5, 0.6, 3.0))
    sitk.WriteImage(image, str(tmp_path / "images/a.mha"))
    mask = sitk.GetImageFromArray((volume[..., 0] > 150).astype(np.uint8))
    mask.CopyInformation(image)
    sitk.WriteImage(sitk.DICOMOrient(mask, "RAS"), str(tmp_path / "masks/a.nii.gz"))
    options = {"masks": tmp_path / "masks", "gated": False, "progress": False}
    stylize_folder(stylizer, tmp_path / "images", tmp_path / "out", **options)
    copied = sitk.ReadImage(str(tmp_path / "out/masks/a.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(copied), sitk.GetArrayFromImage(mask))
    assert copied.GetSpacing() == pytest.approx(image.GetSpacing()) and copied.GetDirection() == image.GetDirection()
    mask.SetOrigin((0, 0, 7))
    sitk.WriteImage(mask, str(tmp_path / "masks/a.nii.gz"))
    with pytest.raises(OsasisError, match=r"same geometry; got spacing .*, but spacing .*a\.nii\.gz"):
        stylize_folder(stylizer, tmp_path / "images", tmp_path / "other", **options)


@pytest.mark.parametrize("twin", ["images/0.tif", "masks/0.tif"])
def test_two_files_of_one_name_are_refused(
    stylizer: OSASISStylizer, image_folder: Path, tmp_path: Path, twin: str
) -> None:
    for name in ("images", "masks"):
        shutil.copytree(image_folder / name, tmp_path / name)
    first = sorted((tmp_path / twin).parent.iterdir())[0]
    tifffile.imwrite(first.with_suffix(".tif"), np.zeros((8, 8), np.uint8))
    with pytest.raises(OsasisError, match=rf"one file; got .*{first.stem}.* and .*{first.stem}"):
        stylize_folder(stylizer, tmp_path / "images", tmp_path / "out", masks=tmp_path / "masks", progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["images/out", "masks/out", "link", "link/out"])
def test_results_never_go_into_a_folder_of_inputs(
    stylizer: OSASISStylizer, image_folder: Path, tmp_path: Path, place: str
) -> None:
    for name in ("images", "masks"):
        shutil.copytree(image_folder / name, tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path / "images")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OsasisError, match="lie in none of them"):
        stylize_folder(stylizer, tmp_path / "images", tmp_path / place, masks=tmp_path / "masks", progress=False)
    assert sorted(tmp_path.rglob("*")) == before
