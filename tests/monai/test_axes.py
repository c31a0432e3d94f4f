"""The same picture gives the same result, whichever reader brought it and however it was turned before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import Compose, Flip, LoadImage, Orientation, Rotate90, SpatialPad, Transpose
from PIL import Image
from specimens import draw

from monai_transforms import OSASISStylize, OSASISStylized, RandOSASISStylize
from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.images.io import read_image
from nnunet_osasis.maps.parametric import ParametricMap, feature_count
from nnunet_osasis.stylizer.archive.run import stylize_folder
from nnunet_osasis.stylizer.config import StylizerConfig

picture = np.ascontiguousarray(draw(3, size=48)[:, :36])  # (C, 36, 48): wider than high

READERS: dict[str, tuple[str, dict]] = {
    "pictures": ("a.png", {"reader": "PILReader", "ensure_channel_first": True}),
    "pictures, rows first": (
        "a.png",
        {"reader": "PILReader", "reverse_indexing": False, "ensure_channel_first": True},
    ),
    "arrays": ("a.npy", {"reader": "NumpyReader", "channel_dim": 0}),
}

TURNS: dict[str, Callable] = {
    "as read": lambda image: image,
    "flipped": Flip(spatial_axis=0),
    "turned": Rotate90(k=1),
    "turned and flipped": Compose([Rotate90(k=3), Flip(spatial_axis=1)]),
    "transposed": Transpose((0, 2, 1)),
}


def sloping(channels: int = 3) -> OSASISStylizer:
    """A stylizer whose map brightens from left to right, and much more from top to bottom."""
    row = [0.0] * feature_count(channels, ("field",))
    across = channels + 1  # after the channels and the constant: columns, each alone and times the channels
    row[across], row[across + channels + 1] = 0.1, 0.3
    change = ParametricMap([row] * channels, ("field",), [-1.0] * channels, [1.0] * channels)
    return OSASISStylizer(
        reference=np.zeros((channels, 8, 8)), maps={"moments": change}, config=StylizerConfig(readout="moments")
    )


@pytest.fixture(params=["networks", "slope"])
def placed(request: pytest.FixtureRequest, stylizer: OSASISStylizer) -> OSASISStylizer:
    """Stylizers that must know which way up a picture is."""
    return stylizer.configured(readout="raw") if request.param == "networks" else sloping()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    Image.fromarray(np.moveaxis(picture, 0, -1)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", picture)
    square = draw(3)
    Image.fromarray(np.moveaxis(square, 0, -1)).save(tmp_path / "square.png")
    return tmp_path


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("reader", READERS)
def test_the_reader_and_turns_before_do_not_matter(placed: OSASISStylizer, files: Path, reader: str, turn: str) -> None:
    name, options = READERS[reader]
    image = LoadImage(**options)(files / name)
    if turn == "transposed" and reader == "arrays":
        pytest.skip("Transpose leaves no trace, and arrays have no size beside their own")
    expected = torch.from_numpy(placed.stylize_array(picture.astype(np.float32)))
    first = image.as_tensor().shape[1:] == (48, 36)
    expected = TURNS[turn](MetaTensor(expected.transpose(1, 2) if first else expected)).as_tensor()
    result = OSASISStylize(placed, gate=False)(TURNS[turn](image)).as_tensor()
    np.testing.assert_allclose(result, expected, atol=1e-3)
    batch = list_data_collate([{"image": TURNS[turn](image)}] * 2)
    together = OSASISStylized("image", placed, gate=False, batched=True)(batch)["image"].as_tensor()
    np.testing.assert_allclose(together[1], expected, atol=1e-3)


def test_a_square_that_reads_the_same_both_ways_is_not_guessed(placed: OSASISStylizer, files: Path) -> None:
    image = LoadImage(ensure_channel_first=True)(files / "square.png")
    for transform in (OSASISStylize(placed, gate=False), RandOSASISStylize(placed, 1.0, 1.0, gate=False)):
        with pytest.raises(OsasisError, match=r'axes must be known.*axes="xyz".*axes="hwd"'):
            transform(image)
    expected = placed.stylize_array(draw(3).astype(np.float32))
    result = OSASISStylize(placed, gate=False, axes="xyz")(image).as_tensor()
    np.testing.assert_allclose(result.transpose(1, 2), expected, atol=1e-3)


def test_maps_of_values_do_not_care(stylizer: OSASISStylizer, files: Path) -> None:
    image = LoadImage(ensure_channel_first=True)(files / "square.png")
    expected = stylizer.stylize_array(draw(3).astype(np.float32), readout="moments")
    result = OSASISStylize(stylizer, readout="moments", gate=False)(image).as_tensor()
    assert np.array_equal(result.transpose(1, 2), expected)


def coronal() -> MetaTensor:
    """A slice whose affine matrix says nothing of its second axis in the plane, as files of single slices have it."""
    affine = torch.eye(4, dtype=torch.float64)[[0, 2, 1, 3]]
    meta = {"filename_or_obj": "slice.nii.gz", "original_affine": affine.numpy(), "space": "RAS"}
    return MetaTensor(torch.from_numpy(picture.astype(np.float32)).transpose(1, 2), affine=affine, meta=meta)


def test_a_slice_whose_affine_matrix_leaves_its_axes_open(placed: OSASISStylizer, stylizer: OSASISStylizer) -> None:
    expected = stylizer.stylize_array(picture.astype(np.float32), readout="moments")
    result = OSASISStylize(stylizer, readout="moments", gate=False)(coronal()).as_tensor()
    assert np.array_equal(result.transpose(1, 2), expected)
    with pytest.raises(OsasisError, match="Say axes="):
        OSASISStylize(placed, gate=False)(coronal())
    said = OSASISStylize(placed, gate=False, axes="xyz")(coronal()).as_tensor()
    rows_first = OSASISStylize(placed, gate=False, axes="hwd")(picture.astype(np.float32))
    np.testing.assert_allclose(said.transpose(1, 2), rows_first, atol=1e-3)


def test_arrays_without_metadata_have_rows_first(placed: OSASISStylizer) -> None:
    expected = placed.stylize_array(picture.astype(np.float32))
    for image in (picture.astype(np.float32), torch.from_numpy(picture).float(), MetaTensor(picture).float()):
        np.testing.assert_allclose(np.asarray(OSASISStylize(placed, gate=False)(image)), expected, atol=1e-3)


STORED = ("LPS", "RAS", "LAS", "PIR", "SPL")


def store(path: Path, scan: np.ndarray, code: str) -> Path:
    """Write a scan ``(Z, Y, X)`` that lies as ITK's identity says in another voxel order."""
    image = nibabel.Nifti1Image(scan.transpose(2, 1, 0), np.diag([-1.0, -1.0, 3.0, 1.0]))
    start = nibabel.orientations.axcodes2ornt(("L", "P", "S"))
    turn = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(tuple(code)))
    nibabel.save(image.as_reoriented(turn), path)
    return path


def as_lps(path: Path) -> np.ndarray:
    image = nibabel.load(path)
    start = nibabel.orientations.io_orientation(image.affine)
    turn = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(("L", "P", "S")))
    return image.as_reoriented(turn).get_fdata().transpose(2, 1, 0)


def test_a_scan_stored_in_any_voxel_order_gives_the_same_anatomy(tmp_path: Path) -> None:
    scan = np.stack([draw(i, channels=1, size=40)[0, :30] for i in range(5)]).astype(np.float32)
    stylizer = sloping(1)
    expected = stylizer.stylize_array(scan[None])[0]
    (tmp_path / "in").mkdir()
    for code in STORED:
        store(tmp_path / "in" / f"{code}.nii.gz", scan, code)
    stylize_folder(stylizer, tmp_path / "in", tmp_path / "out", gated=False, progress=False)
    transform = OSASISStylize(stylizer, gate=False)
    for code in STORED:
        assert np.array_equal(as_lps(tmp_path / "out" / f"{code}.nii.gz"), expected), code
        stored = read_image(tmp_path / "out" / f"{code}.nii.gz").array[0]
        loaded = LoadImage(ensure_channel_first=True)(tmp_path / "in" / f"{code}.nii.gz")
        assert np.array_equal(transform(loaded).as_tensor()[0].permute(2, 1, 0), stored), code
        turned = Orientation("PLS", labels=None)(loaded)
        again = transform(turned)
        assert torch.equal(
            Orientation("LPS", labels=None)(again).as_tensor()[0], torch.from_numpy(expected).permute(2, 1, 0)
        )


def test_a_slice_in_space_is_one_too(tmp_path: Path) -> None:
    scan = draw(1, channels=1, size=40)[0, None, :30].astype(np.float32)
    stylizer = sloping(1)
    expected = stylizer.stylize_array(scan)
    (tmp_path / "in").mkdir()
    for code in ("LPS", "RAS", "LAS", "PLS"):
        store(tmp_path / "in" / f"{code}.nii.gz", scan, code)
    stylize_folder(stylizer, tmp_path / "in", tmp_path / "out", gated=False, progress=False)
    for code in ("LPS", "RAS", "LAS", "PLS"):
        assert np.array_equal(as_lps(tmp_path / "out" / f"{code}.nii.gz"), expected), code


def test_padding_before_is_no_obstacle(placed: OSASISStylizer, files: Path) -> None:
    image = LoadImage(ensure_channel_first=True)(files / "a.png")
    padded = SpatialPad((50, 50))(image)
    result = OSASISStylize(placed, gate=False)(padded).as_tensor()
    expected = OSASISStylize(placed, gate=False, axes="hwd")(padded.as_tensor().transpose(1, 2)).transpose(1, 2)
    np.testing.assert_allclose(result, expected, atol=1e-3)
