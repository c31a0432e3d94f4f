"""What a stylized image keeps of its source: place and direction, type and units, colour profile and resolution."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import LoadImage
from PIL import Image, ImageCms

from monai_transforms import OSASISStylize, StyleTransform
from nnunet_osasis import OSASISStylizer
from nnunet_osasis.controls import Identity, Reinhard
from nnunet_osasis.images.io import files_of, read_image, write_like
from nnunet_osasis.scripts import stylize

from .files import encoded, nifti, picture, tiff, volume

SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
COSINE, SINE = np.cos(0.3), np.sin(0.3)
DIRECTIONS = {
    "straight": np.eye(3), "flipped": np.diag([-1.0, 1.0, -1.0]), "turned": np.array([[0, 0, 1], [1, 0, 0], [0, 1,
    0.0]]),
    "oblique": np.array([[COSINE, -SINE, 0], [SINE, COSINE, 0], [0, 0, 1]]),
}  # fmt: skip
DTYPES = (np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64)


def place(path: Path) -> tuple:
    """Everything that says where voxels are, and of which type."""
    image = sitk.ReadImage(str(path))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection(), image.GetPixelIDTypeAsString()


def written(path: Path, dtype: type, direction: np.ndarray, array: np.ndarray | None = None) -> Path:
    image = sitk.GetImageFromArray(volume(dtype) if array is None else array)
    image.SetSpacing((0.7, 0.8, 3.1))
    image.SetOrigin((-12.5, 33.25, 7.0))
    image.SetDirection(direction.ravel())
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_volume_stays_in_its_place_and_of_its_type(suffix: str, direction: str, tmp_path: Path) -> None:
    for dtype in DTYPES:
        source = written(tmp_path / f"a{suffix}", dtype, DIRECTIONS[direction])
        loaded = read_image(source)
        result = write_like(loaded, loaded.array + loaded.array.dtype.type(1), tmp_path / f"out/a{suffix}")
        if suffix == ".nrrd":  # its directions are stored times the spacing, and taken apart again
            assert place(result)[-1] == place(source)[-1]
            for found, known in zip(place(result)[:4], place(source)[:4], strict=True):
                assert found == pytest.approx(known, rel=1e-14, abs=1e-14)
        else:
            assert place(result) == place(source)
        assert np.array_equal(read_image(result).array, loaded.array + 1)
        same = write_like(loaded, loaded.array, tmp_path / f"same/a{suffix}")
        assert np.array_equal(read_image(same).array, loaded.array)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_command_keeps_place_and_type(suffix: str, stylizer_folder: Path, tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (2, 20, 24, 3)).astype(np.uint8)
    image = sitk.GetImageFromArray(colours, isVector=True)
    image.SetSpacing((0.5, 0.6, 4.0))
    image.SetOrigin((1.0, -2.0, 3.0))
    image.SetDirection(DIRECTIONS["oblique"].ravel())
    (tmp_path / "in").mkdir()
    sitk.WriteImage(image, str(tmp_path / f"in/a{suffix}"))
    line = ["-i", str(tmp_path / "in"), "--stylizer", str(stylizer_folder), "-device", "cpu"]
    stylize.main([*line, "-o", str(tmp_path / "out")])
    stylize.main([*line, "-o", str(tmp_path / "same"), "--strength", "0"])
    assert (
        place(tmp_path / f"out/a{suffix}") == place(tmp_path / f"same/a{suffix}") == place(tmp_path / f"in/a{suffix}")
    )
    assert np.array_equal(read_image(tmp_path / f"same/a{suffix}").array, np.moveaxis(colours, -1, 0))
    assert not np.array_equal(read_image(tmp_path / f"out/a{suffix}").array, np.moveaxis(colours, -1, 0))


@pytest.mark.parametrize("codes", [(1, 1), (2, 2), (0, 2), (1, 0), (1, 4), (0, 0)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_field_of_a_nifti_header_stays(suffix: str, codes: tuple[int, int], tmp_path: Path) -> None:

    source = tmp_path / f"a{suffix}"
    described = header_of(nifti(steps=(0.7, 0.8, 3.1)))
    values = {
        "intent_p1": 1.0, "intent_p2": 2.0, "intent_p3": 3.0, "intent_code": 1001, "xyzt_units": 2 + 8,
        "cal_max": 77.0, "cal_min": -7.0, "toffset": 1.5, "descrip": b"a description", "aux_file": b"other.nii",
        "intent_name": b"named", "slice_duration": 0.25, "slice_code": 3, "slice_end": 3, "dim_info": 57,
        "qform_code": codes[0], "sform_code": codes[1], "quatern_d": 0.0, "qoffset_x": 5.0, "qoffset_y": 6.0,
        "qoffset_z": 7.0, "srow_x": (0.7, 0, 0, 5), "srow_y": (0, 0.8, 0, 6), "srow_z": (0, 0, 3.1, 7),
    }  # fmt: skip
    for name, value in values.items():
        described[name] = value
    data = described.binaryblock + nifti()[len(described.binaryblock) :]
    source.write_bytes(gzip.compress(data) if suffix == ".nii.gz" else data)
    loaded = read_image(source)
    result = write_like(loaded, loaded.array + 1, tmp_path / f"out/a{suffix}")
    made = gzip.decompress(result.read_bytes()) if suffix == ".nii.gz" else result.read_bytes()
    same = {name: header_of(made)[name].tolist() for name in described}
    assert same == {name: described[name].tolist() for name in described}
    assert made[352:] == (loaded.array + 1).tobytes()
    assert place(result) == place(source)


def header_of(data: bytes) -> nibabel.Nifti1Header:
    return nibabel.Nifti1Header(data[:348], check=False)


@pytest.mark.parametrize("order", "<>")
def test_a_nifti_file_keeps_its_byte_order_and_version(order: str, tmp_path: Path) -> None:
    values = volume(np.int16)
    for number, kind in enumerate((nibabel.Nifti1Image, nibabel.Nifti2Image)):
        header = kind.header_class(endianness=order)
        header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))
        path = tmp_path / f"{number}.nii.gz"
        nibabel.save(kind(values.T, np.diag([0.7, 0.8, 3.1, 1]), header), path)
        loaded = read_image(path)
        assert np.array_equal(loaded.array[0], values)
        assert loaded.array.dtype.isnative
        assert loaded.spacing == pytest.approx((3.1, 0.8, 0.7))
        made = nibabel.load(write_like(loaded, loaded.array, tmp_path / f"out/{number}.nii.gz"))
        assert isinstance(made, kind)
        assert made.header.endianness == order
        kept = [name for name in made.header if not name.startswith("scl_")]
        assert [made.header[n].tolist() for n in kept] == [nibabel.load(path).header[n].tolist() for n in kept]
        assert np.array_equal(np.asarray(made.dataobj), values.T)


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (1, 1), (1, 2), (2, 1), (4, 4), (0, 3)])
def test_nifti_geometry_is_what_simpleitk_reads(codes: tuple[int, int], tmp_path: Path) -> None:
    """nnU-Net compares images and labels by it, and spacings are in millimeters whatever the file's unit."""
    path = tmp_path / "a.nii"
    turned = np.eye(4)
    turned[:3, :3] = DIRECTIONS["oblique"] * (0.7, 0.8, 3.1)
    for unit in ("mm", "meter", "micron", "unknown"):
        header = nibabel.Nifti1Header()
        header.set_data_shape((6, 7, 4))
        header.set_data_dtype(np.int16)
        header.set_xyzt_units(unit)
        turned[:3, 3] = (5, 6, 7)
        header.set_qform(turned, codes[0])
        turned[:3, 3] = (50, 60, 70)
        header.set_sform(turned, codes[1])
        header["vox_offset"], header["magic"] = 352, b"n+1"
        path.write_bytes(header.binaryblock + bytes(4) + volume(np.int16).tobytes())
        _, spacing, origin, direction, _ = place(path)
        geometry = read_image(path).geometry
        assert geometry is not None
        assert geometry.spacing == pytest.approx(spacing)
        assert geometry.direction == pytest.approx(direction, abs=1e-6)
        if unit in ("mm", "unknown"):  # SimpleITK leaves the origin in the file's unit
            assert geometry.origin == pytest.approx(origin, abs=1e-5)


def test_scaled_intensities_stay_in_their_units(tmp_path: Path) -> None:
    """A stored slope and intercept are applied; the result holds the same intensities, as 32-bit floats."""
    data = bytearray(nifti())
    struct.pack_into("<2f", data, 112, 2.5, -1024.0)
    (tmp_path / "a.nii").write_bytes(bytes(data))
    loaded = read_image(tmp_path / "a.nii")
    stored = np.frombuffer(bytes(data)[352:], np.int16).reshape(1, 4, 7, 6)
    assert np.allclose(loaded.array, stored * 2.5 - 1024.0)
    again = read_image(write_like(loaded, loaded.array, tmp_path / "out/a.nii"))
    assert again.array.dtype == np.float32
    assert np.array_equal(again.array, loaded.array)


def test_colors_of_a_nifti_file_stay_colors(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(nifti(kind=128, bits=24, data=bytes(range(252)) * 2)))
    loaded = read_image(tmp_path / "a.nii.gz")
    result = write_like(loaded, loaded.array + 1, tmp_path / "out/a.nii.gz")
    assert np.array_equal(read_image(result).array, loaded.array + 1)
    assert place(result) == place(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("shape", [(1, 9, 8), (3, 9, 8), (1, 4, 9, 8), (3, 4, 9, 8)])
def test_other_formats_become_nifti_in_their_place(shape: tuple[int, ...], tmp_path: Path) -> None:
    """As SimpleITK would write them: channels as vectors, the geometry of a MetaImage, none of a TIFF file."""
    values = np.random.default_rng(0).integers(0, 99, shape).astype(np.float32)
    image = sitk.GetImageFromArray(np.moveaxis(values, 0, -1), isVector=True) if shape[0] > 1 else None
    image = sitk.GetImageFromArray(values[0]) if image is None else image
    for turn in (False, True):
        if turn:
            image.SetSpacing((0.7, 0.8, 3.1)[: len(shape) - 1])
            image.SetOrigin((-12.5, 33.25, 7.0)[: len(shape) - 1])
            image.SetDirection(DIRECTIONS["oblique"][: len(shape) - 1, : len(shape) - 1].ravel())
        sitk.WriteImage(image, str(tmp_path / "a.mha"))
        sitk.WriteImage(image, str(tmp_path / "expected.nii"))
        loaded = read_image(tmp_path / "a.mha")
        made, expected = place(write_like(loaded, loaded.array, tmp_path / "a.nii")), place(tmp_path / "expected.nii")
        assert (made[0], made[-1]) == (expected[0], expected[-1])
        for numbers, known in zip(made[1:4], expected[1:4], strict=True):
            assert numbers == pytest.approx(known, abs=1e-6)
        assert np.array_equal(read_image(tmp_path / "a.nii").array, values)


def test_a_pair_of_header_and_data_becomes_one_file(tmp_path: Path) -> None:
    source = written(tmp_path / "a.mhd", np.int16, DIRECTIONS["oblique"])
    assert files_of(source) == (source, tmp_path / "a.raw")
    result = write_like(read_image(source), read_image(source).array, tmp_path / "out/a.mhd")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.mhd"]
    assert files_of(result) == (result,)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(result))),
                          sitk.GetArrayFromImage(sitk.ReadImage(str(source))))  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_pictures_are_upright_whatever_their_orientation_tag_says(
    suffix: str, orientation: int, tmp_path: Path
) -> None:
    """As Pillow turns them; and the result is stored as its source is, with its tag, so that its mask fits."""
    stored = np.repeat(np.repeat(np.array([[10, 60, 110], [160, 210, 250]], np.uint8), 16, 0), 16, 1)
    tags = Image.Exif()
    tags[274] = orientation
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        path.write_bytes(tiff(stored, extratags=[(274, 3, 1, orientation, True)]))
    else:
        path.write_bytes(encoded(stored, "PNG" if suffix == ".png" else "JPEG", exif=tags))
    turns = {1: (), 2: ("h",), 3: ("h", "v"), 4: ("v",), 5: ("t",), 6: ("t", "h"), 7: ("t", "h", "v"), 8: ("t", "v")}
    expected = stored
    for turn in turns[orientation]:
        expected = {"h": expected[:, ::-1], "v": expected[::-1], "t": expected.T}[turn]
    loaded = read_image(path)
    assert loaded.array.shape == (1, *expected.shape)
    assert np.abs(loaded.array[0].astype(int) - expected).max() <= (6 if suffix == ".jpg" else 0)
    result = write_like(loaded, loaded.array, tmp_path / f"out{'.png' if suffix == '.jpg' else suffix}")
    assert np.array_equal(read_image(result).array, loaded.array)
    with Image.open(result) as opened:
        assert opened.getexif().get(274, 1) == orientation
    as_stored = tifffile.imread(result) if suffix == ".tif" else np.array(Image.open(result))
    assert as_stored.shape == stored.shape and np.abs(as_stored.astype(int) - stored).max() <= 6


def test_colour_profiles_and_resolutions_stay(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, form in (("a.png", "PNG"), ("b.jpg", "JPEG")):
        (tmp_path / name).write_bytes(encoded(picture(), form, icc_profile=profile, dpi=(300, 150)))
        loaded = read_image(tmp_path / name)
        with Image.open(write_like(loaded, loaded.array, tmp_path / f"out {name}.png")) as opened:
            assert opened.info["icc_profile"] == profile
            assert opened.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    whole = tiff(picture(), photometric="rgb", resolution=(72, 36), resolutionunit="CENTIMETER", iccprofile=profile)
    (tmp_path / "c.tif").write_bytes(whole)
    loaded = read_image(tmp_path / "c.tif")
    with tifffile.TiffFile(write_like(loaded, loaded.array, tmp_path / "out.tif")) as opened:
        page = opened.pages[0]
        assert (page.resolution, page.resolutionunit, page.iccprofile) == ((72, 36), 3, profile)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 9, 8), (3, 9, 8), (1, 3, 9, 8), (1, 4, 9, 8), (3, 2, 9, 8), (5, 9, 8)])
def test_tiff_of_any_shape_comes_back(shape: tuple[int, ...], dtype: type, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 200, shape).astype(dtype)
    stored = values[0] if shape[0] == 1 else np.moveaxis(values, 0, -1)
    kind = "rgb" if shape[0] == 3 else "minisblack"
    (tmp_path / "a.tif").write_bytes(tiff(stored, photometric=kind, planarconfig=None if shape[0] == 1 else "contig"))
    loaded = read_image(tmp_path / "a.tif")
    assert np.array_equal(loaded.array, values)
    again = read_image(write_like(loaded, loaded.array, tmp_path / "b.tif")).array
    assert (again.dtype, again.shape) == (loaded.array.dtype, shape)
    assert np.array_equal(again, values)


PAGES = {"CYX": (2, 9, 8), "ZCYX": (4, 3, 9, 8), "CZYX": (2, 4, 9, 8)}


@pytest.mark.parametrize(
    ("kind", "axes"),
    [(kind, axes) for kind in ("ome", "imagej", "plain") for axes in PAGES if (kind, axes) != ("imagej", "CZYX")],
)
def test_channels_in_pages_stay_there(kind: str, axes: str, tmp_path: Path) -> None:
    """Fluorescence: another order of axes would pair channels with slices in every other program."""
    shape = PAGES[axes]
    values = np.random.default_rng(0).integers(0, 60000, shape).astype(np.uint16)
    options = {} if kind == "plain" else {kind: True}
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", metadata={"axes": axes}, **options)
    loaded = read_image(tmp_path / "a.tif")
    assert len(loaded.array) == shape[axes.index("C")]
    with tifffile.TiffFile(write_like(loaded, loaded.array, tmp_path / "out.tif")) as opened:
        assert opened.series[0].axes == axes
        assert (opened.is_ome, opened.is_imagej) == (kind == "ome", kind == "imagej")
        assert np.array_equal(opened.asarray(), values)


def test_monai_keeps_the_affine_matrix_and_the_type(tmp_path: Path) -> None:
    for direction in DIRECTIONS.values():
        path = written(tmp_path / "a.nii.gz", np.int16, direction)
        given = LoadImage(reader="NibabelReader", image_only=True, ensure_channel_first=True, dtype=None)(str(path))
        assert isinstance(given, MetaTensor)
        for transfer in (Identity(1), Reinhard(volume(np.int16)[None] * np.int16(2))):
            found = StyleTransform(transfer)(given)
            assert torch.equal(found.affine, given.affine)
            assert found.dtype == given.dtype
            assert {k for k in found.meta} == {k for k in given.meta}
        assert torch.equal(StyleTransform(Identity(1))(given).as_tensor(), given.as_tensor())


def test_strength_zero_gives_the_very_voxels(stylizer: OSASISStylizer) -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, 20, 24)).astype(np.int32) * 70_000_001
    assert np.array_equal(OSASISStylize(stylizer, strength=0)(values), values)
