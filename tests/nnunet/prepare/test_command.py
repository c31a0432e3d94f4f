"""``osasis-prepare``: a dataset nnU-Net accepts, whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
from multiprocessing.pool import ThreadPool
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.scripts import prepare

from . import trees


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))


def folders(tmp_path: Path, *more: str, number: str = "501") -> list[str]:
    images, masks = str(tmp_path / "a"), str(tmp_path / "b")
    return ["--images", images, "--masks", masks, "-d", number, "-name", "Mine", "--folds", "2", *more]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_clinicdb_becomes_a_dataset(tmp_path, capsys):
    trees.clinicdb(tmp_path / "src")
    prepare.main(
        [
            "--layout",
            "clinicdb",
            "-i",
            str(tmp_path / "src"),
            "-d",
            "7",
            "-name",
            "Polyps",
            "--test",
            "612",
            "--folds",
            "3",
        ]
    )
    folder = tmp_path / "raw/Dataset007_Polyps"
    described = json.loads((folder / "dataset.json").read_text())
    assert described["channel_names"] == {"0": "rgb_to_0_1", "1": "rgb_to_0_1", "2": "rgb_to_0_1"}
    assert described["labels"] == {"background": 0, "polyp": 1} and described["numTraining"] == 7
    assert described["licence"].startswith("research")
    names = [path.stem for path in sorted((folder / "labelsTr").iterdir())]
    assert names == [f"Polyps_{n:03d}" for n in (1, 2, 25, 26, 51, 52, 68)]
    assert np.array_equal(np.array(Image.open(folder / "imagesTr/Polyps_001_0000.png")), trees.picture(0))
    assert np.array_equal(np.array(Image.open(folder / "labelsTr/Polyps_001.png")), trees.mask(0) // 255)
    assert [path.name for path in (folder / "imagesTs").iterdir()] == ["Polyps_612_0000.png"]
    splits = json.loads((tmp_path / "preprocessed/Dataset007_Polyps/splits_final.json").read_text())
    assert splits == json.loads((folder / "splits_final.json").read_text()) and len(splits) == 3
    records = json.loads((folder / "cases.json").read_text())
    assert records["Polyps_612"]["group"] == "sequence 29" and records["Polyps_612"]["image"] == "612.tif"
    assert "nnUNetv2_plan_and_preprocess -d 7" in capsys.readouterr().out


def test_nnunets_own_check_accepts_the_result(tmp_path, monkeypatch):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    class Threads:
        Pool = ThreadPool

    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: Threads())
    trees.drive(tmp_path / "src")
    arguments = ["--layout", "drive", "-i", str(tmp_path / "src"), "-d", "8", "-name", "Drive"]
    prepare.main([*arguments, "--outside-field", "ignore", "--folds", "3"])
    verify_dataset_integrity(str(tmp_path / "raw/Dataset008_Drive"), num_processes=1)


def test_grey_pictures_get_one_channel_and_names_can_be_chosen(tmp_path):
    for i in range(4):
        trees.save(tmp_path / f"a/{i}.png", trees.picture(i)[..., 0].astype(np.uint16) * 200)
        trees.save(tmp_path / f"b/{i}.png", trees.mask(i))
    prepare.main(folders(tmp_path))
    folder = tmp_path / "raw/Dataset501_Mine"
    assert json.loads((folder / "dataset.json").read_text())["channel_names"] == {"0": "zscore"}
    assert np.array(Image.open(folder / "imagesTr/Mine_0_0000.png")).max() > 255
    prepare.main(folders(tmp_path, "--channel-names", "noNorm", "--overwrite"))
    assert json.loads((folder / "dataset.json").read_text())["channel_names"] == {"0": "noNorm"}
    with pytest.raises(OsasisError, match=r"1 channel\(s\)"):
        prepare.main(folders(tmp_path, "--channel-names", "R", "G", "--overwrite"))


def test_volumes_keep_their_geometry(tmp_path):
    for i in range(4):
        for part, array in (("a", np.random.default_rng(i).normal(size=(4, 8, 6)).astype(np.float32)),
                            ("b", np.pad(np.ones((2, 4, 2), np.int16), ((1, 1), (2, 2), (2, 2))))):  # fmt: skip
            (tmp_path / part).mkdir(exist_ok=True)
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((0.5, 0.6, 3.0))
            sitk.WriteImage(image, tmp_path / part / f"s{i}.{'nii.gz' if i else 'mha'}")
    prepare.main(folders(tmp_path))
    folder = tmp_path / "raw/Dataset501_Mine"
    assert json.loads((folder / "dataset.json").read_text())["file_ending"] == ".nii.gz"
    for i in range(4):
        image = sitk.ReadImage(folder / f"imagesTr/Mine_s{i}_0000.nii.gz")
        label = sitk.ReadImage(folder / f"labelsTr/Mine_s{i}.nii.gz")
        assert image.GetSpacing() == pytest.approx((0.5, 0.6, 3.0)) == label.GetSpacing()
        assert set(np.unique(sitk.GetArrayFromImage(label))) == {0, 1}
        expected = np.random.default_rng(i).normal(size=(4, 8, 6)).astype(np.float32)
        assert np.array_equal(sitk.GetArrayFromImage(image), expected)


def test_labels_lie_where_their_images_lie(tmp_path):
    """Also where a NIfTI file says nowhere: nnU-Net compares the two as SimpleITK reads them."""
    for i, code in enumerate((0, 1, 2, 4)):
        (tmp_path / "a").mkdir(exist_ok=True)
        image = nibabel.Nifti1Image(np.random.default_rng(i).normal(size=(6, 8, 4)).astype(np.float32), None)
        image.header["pixdim"][1:4] = (0.5, 0.6, 3.0)
        image.header.set_qform(np.array([[0, -0.6, 0, 3], [0.5, 0, 0, 4], [0, 0, 3, 5], [0, 0, 0, 1.0]]), code)
        image.header["cal_max"] = 3000
        nibabel.save(image, tmp_path / f"a/s{i}.nii.gz")
        (tmp_path / "b").mkdir(exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(np.eye(4, 8, dtype=np.uint8)[..., None] * np.ones(6, np.uint8)),
                        tmp_path / f"b/s{i}.mha")  # fmt: skip
    prepare.main(folders(tmp_path))
    folder = tmp_path / "raw/Dataset501_Mine"
    for i in range(4):
        image = sitk.ReadImage(folder / f"imagesTr/Mine_s{i}_0000.nii.gz")
        label = sitk.ReadImage(folder / f"labelsTr/Mine_s{i}.nii.gz")
        for ask in ("GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(image, ask)() == getattr(label, ask)()
        assert label.GetPixelIDTypeAsString() == "8-bit unsigned integer"
        assert nibabel.load(folder / f"labelsTr/Mine_s{i}.nii.gz").header["cal_max"] == 0


@pytest.mark.parametrize("order", ["RAS", "LPS", "PIR", "ASL", "SRA"])
def test_masks_in_another_order_of_voxels_are_brought_onto_the_image(tmp_path, order):
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
    for i in range(4):
        array = np.random.default_rng(i).normal(size=(4, 8, 6)).astype(np.float32)
        image = sitk.GetImageFromArray(array)
        if i < 3:  # the last image has the geometry that libraries write by default
            image.SetSpacing((0.5, 0.6, 3.0))
            image.SetOrigin((-20, 7, 11))
        sitk.WriteImage(image, tmp_path / f"a/s{i}.nii.gz")
        sitk.WriteImage(sitk.DICOMOrient(sitk.Cast(image > 1, sitk.sitkUInt8), order), tmp_path / f"b/s{i}.nii.gz")
    prepare.main(folders(tmp_path))
    for i in range(4):
        label = sitk.ReadImage(tmp_path / f"raw/Dataset501_Mine/labelsTr/Mine_s{i}.nii.gz")
        expected = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / f"a/s{i}.nii.gz")) > 1
        assert np.array_equal(sitk.GetArrayFromImage(label) > 0, expected)
    moved = sitk.ReadImage(tmp_path / "b/s0.nii.gz")
    moved.SetOrigin((0, 0, 40))
    sitk.WriteImage(moved, tmp_path / "b/s0.nii.gz")
    with pytest.raises(OsasisError, match=r"same geometry.*origin"):
        prepare.main(folders(tmp_path, "--overwrite"))


def test_a_mask_without_its_images_orientation_tag_is_named(tmp_path):
    tags = Image.Exif()
    tags[274] = 6
    for i in range(4):
        for part in ("a", "b"):
            (tmp_path / part).mkdir(exist_ok=True)
        Image.fromarray(trees.picture(i, size=(9, 12))).save(tmp_path / f"a/{i}.jpg", exif=tags)
        trees.save(tmp_path / f"b/{i}.png", trees.mask(i, size=(9, 12)))
    with pytest.raises(OsasisError, match=r"orientation tags \(EXIF\) 6 and 1.*Turn the pixels"):
        prepare.main(folders(tmp_path))


def test_several_classes(tmp_path):
    for i in range(4):
        trees.save(tmp_path / f"a/{i}.png", trees.picture(i))
        trees.save(tmp_path / f"b/{i}.png", trees.mask(i, value=128) + trees.mask(0, value=127))
    with pytest.raises(OsasisError, match="--labels"):
        prepare.main(folders(tmp_path))
    prepare.main(folders(tmp_path, "--labels", "background=0", "disc=128", "cup=255"))
    folder = tmp_path / "raw/Dataset501_Mine"
    assert json.loads((folder / "dataset.json").read_text())["labels"] == {"background": 0, "disc": 1, "cup": 2}
    assert np.array(Image.open(folder / "labelsTr/Mine_3.png")).max() == 2


@pytest.mark.parametrize("option", [["--foreground", "cup"], ["--threshold", "0"]])
def test_options_of_binary_masks_are_refused_beside_labels(tmp_path, capsys, option):
    with pytest.raises(SystemExit) as ended:
        prepare.main(folders(tmp_path, "--labels", "background=0", "disc=128", *option))
    assert ended.value.code == 2 and "binary masks" in capsys.readouterr().err


def test_all_bad_files_are_told_at_once_and_nothing_is_left(tmp_path):
    trees.pairs(tmp_path, "a/{}.png", "b/{}.png", list(range(4)))
    trees.save(tmp_path / "b/1.png", trees.mask(size=(5, 5)))
    (tmp_path / "a/2.png").write_bytes(b"broken")
    with pytest.raises(OsasisError) as caught:
        prepare.main(folders(tmp_path))
    assert "same size" in str(caught.value) and "readable" in str(caught.value)
    assert [path.name for path in (tmp_path / "raw").iterdir()] == [".Dataset501_Mine.lock"]
    assert not (tmp_path / "preprocessed").exists()


def test_mixed_kinds_and_disagreeing_masks_are_refused(tmp_path):
    trees.pairs(tmp_path, "a/{}.png", "b/{}.png", list(range(4)))
    trees.save(tmp_path / "a/1.png", trees.picture()[..., 0])
    with pytest.raises(OsasisError, match=r"color pictures \(.*gray pictures \("):
        prepare.main(folders(tmp_path))
    trees.save(tmp_path / "a/1.png", trees.picture())
    trees.save(tmp_path / "b/1.png", trees.mask(value=2))
    with pytest.raises(OsasisError, match="values 2, 255"):
        prepare.main(folders(tmp_path))
    prepare.main(folders(tmp_path, "--threshold", "0"))


def test_what_is_there_is_only_replaced_when_asked(tmp_path):
    trees.pairs(tmp_path, "a/{}.png", "b/{}.png", list(range(4)))
    prepare.main(folders(tmp_path))
    folder = tmp_path / "raw/Dataset501_Mine"
    before = contents(folder)
    with pytest.raises(OsasisError, match="--overwrite"):
        prepare.main(folders(tmp_path))
    trees.save(tmp_path / "b/1.png", trees.mask(size=(5, 5)))
    with pytest.raises(OsasisError, match="same size"):
        prepare.main(folders(tmp_path, "--overwrite"))
    assert contents(folder) == before
    trees.save(tmp_path / "b/1.png", trees.mask(3))
    prepare.main(folders(tmp_path, "--overwrite"))
    assert contents(folder) != before
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == [".Dataset501_Mine.lock", "Dataset501_Mine"]
    (tmp_path / "raw/Dataset502_Other").mkdir()
    with pytest.raises(OsasisError, match="its own"):
        prepare.main(folders(tmp_path, number="502"))


@pytest.mark.parametrize(
    "change",
    [
        ["-d", "0"],
        ["-d", "x"],
        ["-name", "a b"],
        ["--seed", "-1"],
        ["-i", "x"],
        ["--layout", "drive"],
        ["--masks", "nowhere"],
    ],
)
def test_wrong_arguments_end_with_status_1_and_one_message(tmp_path, monkeypatch, capsys, change):
    trees.pairs(tmp_path, "a/{}.png", "b/{}.png", list(range(4)))
    monkeypatch.setattr("sys.argv", ["osasis-prepare", *folders(tmp_path), *change])
    with pytest.raises(SystemExit) as ended:
        prepare.entry()
    assert ended.value.code == 1 and capsys.readouterr().err.startswith("Error: ")


def test_a_raw_folder_must_be_known(tmp_path, monkeypatch):
    trees.pairs(tmp_path, "a/{}.png", "b/{}.png", list(range(4)))
    for name in ("raw", "preprocessed"):
        monkeypatch.delenv(f"nnUNet_{name}")
    with pytest.raises(OsasisError, match="nnUNet_raw"):
        prepare.main(folders(tmp_path))
    prepare.main(folders(tmp_path, "-o", str(tmp_path / "elsewhere")))
    assert (tmp_path / "elsewhere/Dataset501_Mine/dataset.json").is_file()


def test_an_ignore_label_of_masks_becomes_nnunets(tmp_path):
    for i in range(4):
        trees.save(tmp_path / f"a/{i}.png", trees.picture(i))
        mask = trees.mask(i, value=1)
        mask[-2:] = 255
        trees.save(tmp_path / f"b/{i}.png", mask)
    prepare.main(folders(tmp_path, "--labels", "background=0", "ignore=255", "lesion=1"))
    folder = tmp_path / "raw/Dataset501_Mine"
    assert json.loads((folder / "dataset.json").read_text())["labels"] == {"background": 0, "lesion": 1, "ignore": 2}
    label = np.array(Image.open(folder / "labelsTr/Mine_0.png"))
    assert (label[-2:] == 2).all() and label[3, 4] == 1
    with pytest.raises(OsasisError, match="name another class"):
        prepare.main(folders(tmp_path, "--labels", "background=0", "ignore=255", "--overwrite"))


def test_masks_without_foreground_are_refused_and_inverted_ones_are_told(tmp_path, capsys):
    for i in range(4):
        trees.save(tmp_path / f"a/{i}.png", trees.picture(i))
        trees.save(tmp_path / f"b/{i}.png", trees.mask(i) * 0)
    with pytest.raises(OsasisError, match="must hold foreground; got none in 4 masks"):
        prepare.main(folders(tmp_path))
    for i in range(4):
        trees.save(tmp_path / f"b/{i}.png", 255 - trees.mask(i))
    prepare.main(folders(tmp_path))
    assert "more than half of 4 of 4 images" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["OME", "ImageJ", "nnU-Net"])
def test_a_tiff_stack_keeps_its_spacing(tmp_path, source):
    options = {
        "OME": {"ome": True, "metadata": {"axes": "ZYX",
                "PhysicalSizeX": 0.4, "PhysicalSizeXUnit": "mm", "PhysicalSizeY": 0.5,
                "PhysicalSizeYUnit": "mm", "PhysicalSizeZ": 3.0, "PhysicalSizeZUnit": "mm"}},
        "ImageJ": {"imagej": True, "resolution": (2.5, 2.0), "metadata": {"axes": "ZYX", "unit": "mm", "spacing": 3.0}},
        "nnU-Net": {"photometric": "minisblack"},
    }[source]  # fmt: skip
    for i in range(4):
        (tmp_path / "a").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / f"a/{i}.tif", np.full((5, 12, 16), 300, np.uint16) + i, **options)
        if source == "nnU-Net":
            (tmp_path / f"a/{i}.json").write_text('{"spacing": [3.0, 0.5, 0.4]}')
        trees.save(tmp_path / f"b/{i}.tif", np.stack([trees.mask(i)] * 5))
    prepare.main(folders(tmp_path))
    for part, name in (("imagesTr", "Mine_0_0000"), ("labelsTr", "Mine_0")):
        image = sitk.ReadImage(tmp_path / f"raw/Dataset501_Mine/{part}/{name}.nii.gz")
        assert image.GetSpacing() == pytest.approx((0.4, 0.5, 3.0))


def test_a_fourth_axis_of_one_time_is_kept_and_fits(tmp_path):
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
    for i in range(4):
        values = np.random.default_rng(i).normal(size=(6, 8, 4, 1)).astype(np.float32)
        affine = np.diag([-0.5, -0.6, 3.0, 1])
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / f"a/s{i}.nii.gz")
        nibabel.save(nibabel.Nifti1Image((values[..., 0] > 0).astype(np.uint8), affine), tmp_path / f"b/s{i}.nii.gz")
    prepare.main(folders(tmp_path))
    image, label = (nibabel.load(tmp_path / f"raw/Dataset501_Mine/{name}.nii.gz")
                    for name in ("imagesTr/Mine_s0_0000", "labelsTr/Mine_s0"))  # fmt: skip
    assert np.array_equal(np.asarray(label.dataobj) > 0, np.asarray(image.dataobj) > 0)
    assert np.allclose(label.affine, image.affine)


@pytest.mark.parametrize("place", ["a", "a/raw", "link", "own"])
def test_a_dataset_is_never_written_where_its_images_are(tmp_path, place):
    trees.pairs(tmp_path, "a/{}.png", "b/{}.png", list(range(4)))
    (tmp_path / "link").symlink_to(tmp_path / "b")
    arguments = folders(tmp_path, "-o", str(tmp_path / place), "--overwrite")
    if place == "own":  # the images are those of the dataset that would be replaced
        prepare.main(folders(tmp_path, "-o", str(tmp_path / place)))
        arguments[1] = str(tmp_path / place / "Dataset501_Mine/imagesTr")
    before = contents(tmp_path)
    with pytest.raises(OsasisError, match="another folder than the inputs"):
        prepare.main(arguments)
    assert contents(tmp_path) == before
