"""What references may be where one of them holds 255, and what would silently be read as something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.metrics import score_case, score_folder
from nnunet_osasis.evaluation.metrics.reading import read_references, survey_file

MASK = np.zeros((40, 40), int)
MASK[10:30, 10:30] = 255
DISC = np.where(MASK > 0, 128, 0)
CUP = DISC.copy()
CUP[15:25, 15:25] = 255


def edged(values: list[int]) -> np.ndarray:
    """The square with ``values`` along its edges."""
    picture = MASK.copy()
    picture[10, 10:30], picture[29, 10:30] = np.resize(values[:20], 20), np.resize(values[20:] or values, 20)
    return picture


REFUSED = {
    "disc and cup": (CUP, "0, 128, 255"),
    "a disc without a cup": (DISC, "0, 128"),
    "0 and 1": (MASK // 255, "0, 1"),
    "1 all over": (MASK * 0 + 1, "1"),
    "labels": (DISC // 128 + CUP // 255, "0, 1, 2"),
    "a label and 255 for what is ignored": (np.where(CUP == 128, 1, CUP), "0, 1, 255"),
    "many classes": (MASK + 10 * (np.arange(1600).reshape(40, 40) % 20) * (MASK == 0), "0, 10, 20, 30, 40, 50, ..."),
}
READ = {
    "0 and 255": MASK,
    "empty": MASK * 0,
    "full": MASK * 0 + 255,
    "JPEG noise": edged([1, 2, 5, 250, 253, 254]),
    "soft edges": edged(list(range(20, 240, 12))),
    "soft edges of many values": edged(list(range(20, 240, 6))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_would_lose_classes_or_its_foreground_is_refused(tmp_path: Path, save_png, name: str) -> None:
    picture, shown = REFUSED[name]
    save_png(tmp_path / "a.png", MASK)
    save_png(tmp_path / "odd.png", picture)
    facts = [survey_file(tmp_path / "a.png"), survey_file(tmp_path / "odd.png")]
    with pytest.raises(OsasisError, match=rf"got the values {shown} in .*odd\.png\. .*--classes.*one convention"):
        read_references(facts, None)
    assert read_references(facts, [1, 255]).classes == (1, 255)


@pytest.mark.parametrize("name", READ)
def test_soft_edges_and_jpeg_noise_are_read_as_masks(tmp_path: Path, save_png, name: str) -> None:
    save_png(tmp_path / "a.png", MASK)
    save_png(tmp_path / "b.png", READ[name])
    reading = read_references([survey_file(tmp_path / "a.png"), survey_file(tmp_path / "b.png")], None)
    assert (reading.classes, reading.scale) == (None, 255)


def test_three_classes_are_scored_when_they_are_named(tmp_path: Path, save_png) -> None:
    for folder in ("p", "r"):
        save_png(tmp_path / folder / "a.png", CUP)
    with pytest.raises(OsasisError, match="--classes"):
        score_folder(tmp_path / "p", tmp_path / "r", metrics=["dice"], progress=False)
    found = score_folder(tmp_path / "p", tmp_path / "r", classes=[128, 255], metrics=["dice"], progress=False)
    assert found.labels == ("128", "255", "mean") and {s.values["dice"] for s in found.scores} == {1.0}


def score(folder: Path, **options: Any) -> dict[str, float]:
    found = score_folder(folder / "p", folder / "r", metrics=["dice", "specificity", "mae"], progress=False, **options)
    assert found.labels == ("foreground",)
    return found.scores[0].values


@pytest.mark.parametrize(("truth", "predicted"), [(254, 255), (254, 1), (254, 254), (128, 255), (128, 1), (200, 200)])
def test_two_values_are_a_mask_whatever_the_brighter_one_is(
    tmp_path: Path, save_png, truth: int, predicted: int
) -> None:
    for folder, value in (("r", truth), ("p", predicted)):
        save_png(tmp_path / folder / "a.png", (MASK > 0) * value)
    assert score(tmp_path) == {"dice": 1.0, "specificity": 1.0, "mae": 0.0}


def test_classes_beside_masks_of_an_odd_value_are_not_taken_for_gray_levels(tmp_path: Path, save_png) -> None:
    save_png(tmp_path / "r/a.png", DISC)
    save_png(tmp_path / "p/a.png", CUP)
    with pytest.raises(OsasisError, match=r"got the values 0, 128, 255 in .*a\.png.*--classes 128"):
        score(tmp_path)
    assert score(tmp_path, scale=255)["dice"] == 1.0


@pytest.mark.parametrize("value", [1, 3, 255])
def test_another_label_than_the_only_one_of_the_references_is_named(tmp_path: Path, save_png, value: int) -> None:
    save_png(tmp_path / "r/a.png", (MASK > 0) * 2)
    save_png(tmp_path / "p/a.png", (MASK > 0) * value)
    with pytest.raises(OsasisError, match=rf"references' labels; got {value} in .*a\.png for the classes 2"):
        score(tmp_path)


@pytest.mark.parametrize("white", [255, 254])
def test_masks_of_1_and_of_255_in_one_folder_are_refused_with_a_file_of_each(
    tmp_path: Path, save_png, white: int
) -> None:
    for name, value in (("a", 1), ("b", white)):
        save_png(tmp_path / f"r/{name}.png", MASK)
        save_png(tmp_path / f"p/{name}.png", (MASK > 0) * value)
    with pytest.raises(OsasisError, match=rf"one foreground value; got 1 in .*a\.png and {white} in .*b\.png"):
        score(tmp_path)
    assert score(tmp_path, scale=255)["dice"] == 0.0  # a faint map, the user says


@pytest.mark.parametrize("place", ["beside", "in", "above", "predictions"])
def test_pixels_of_nnunets_ignore_label_do_not_count(tmp_path: Path, save_png, place: str) -> None:
    truth, predicted = (MASK > 0).astype(int), (MASK > 0).astype(int)
    truth[25:] = 2
    predicted[28:] = 1
    predicted[12, 12] = 0
    save_png(tmp_path / "labelsTs/a.png", truth)
    save_png(tmp_path / "p/a.png", predicted)
    dataset = {"in": tmp_path / "labelsTs", "predictions": tmp_path / "p"}.get(place, tmp_path)
    if place == "above":  # one more folder between
        (tmp_path / "labelsTs").rename(tmp_path / "site")
        (tmp_path / "labelsTs").mkdir()
        (tmp_path / "site").rename(tmp_path / "labelsTs/site")
    (dataset / "dataset.json").write_text('{"labels": {"background": 0, "vessel": 1, "ignore": 2}}')
    (tmp_path / "r").symlink_to(tmp_path / "labelsTs" / ("site" if place == "above" else ""))
    known = (slice(None, 25), slice(None))
    assert score(tmp_path) == score_case(predicted[known], truth[known], metrics=["dice", "specificity", "mae"])
    stated = score_folder(tmp_path / "p", tmp_path / "r", classes=[1, 2], metrics=["dice"], progress=False)
    assert stated.labels == ("1", "2", "mean") and stated.reading.ignore is None
    assert read_references([survey_file(tmp_path / "r/a.png")], None, ignore=2).text.endswith("label 2 left out")


def test_a_label_that_no_reference_has_is_refused_unless_the_dataset_knows_it(tmp_path: Path, save_png) -> None:
    save_png(tmp_path / "r/a.png", DISC // 128 + CUP // 255)
    save_png(tmp_path / "p/a.png", 3 * (CUP // 255) + DISC // 128 * (CUP == 128))
    options = {"metrics": ["dice"], "progress": False}
    with pytest.raises(OsasisError, match=r"references' labels; got 3 in .*a\.png for the classes 1, 2"):
        score_folder(tmp_path / "p", tmp_path / "r", **options)
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "whole": [1, 2, 3], "core": 3, "ignore": 4}}')
    assert score_folder(tmp_path / "p", tmp_path / "r", **options).labels == ("1", "2", "mean")
    (tmp_path / "dataset.json").unlink()
    assert score_folder(tmp_path / "p", tmp_path / "r", classes=[1], **options).labels == ("1",)


@pytest.mark.parametrize("value", [1, 2, 100])
def test_a_dark_mask_among_maps_is_refused_with_its_name(tmp_path: Path, save_png, value: int) -> None:
    """It would be scored as a faint map, at Dice 0."""
    for name in ("a", "b"):
        save_png(tmp_path / f"r/{name}.png", MASK)
    save_png(tmp_path / "p/a.png", (MASK > 0) * value)
    save_png(tmp_path / "p/b.png", MASK * (np.arange(1600).reshape(40, 40) % 50 + 200) // 255)
    with pytest.raises(OsasisError, match=rf"faint 8-bit map; got the values 0, {value} in .*a\.png, beside .*b\.png"):
        score_folder(tmp_path / "p", tmp_path / "r", metrics=["dice"], progress=False)
    found = score_folder(tmp_path / "p", tmp_path / "r", metrics=["dice"], scale=255, progress=False)
    assert [score.values["dice"] for score in found.scores] == [0.0, 1.0]


def test_surfaces_do_not_count_where_the_truth_is_unknown(tmp_path: Path) -> None:
    truth, predicted = np.zeros((8, 20, 20), np.uint8), np.zeros((8, 20, 20), np.uint8)
    truth[2:6, 4:10, 4:10] = predicted[2:6, 4:10, 4:10] = 1
    truth[:, :, 15:], predicted[:, 5:9, 16:19] = 2, 1
    for name, array in (("labelsTs", truth), ("p", predicted)):
        (tmp_path / name).mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / name / "a.nii.gz"))
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "lesion": 1, "ignore": 2}}')
    found = score_folder(
        tmp_path / "p", tmp_path / "labelsTs", metrics=["dice", "hd95", "nsd", "lesions_false"], progress=False
    )
    assert found.scores[0].values == {"dice": 1.0, "hd95": 0.0, "nsd": 1.0, "lesions_false": 0.0}


def test_a_prediction_with_swapped_axes_is_brought_onto_its_references_grid(tmp_path: Path) -> None:
    truth = np.zeros((6, 8, 10), np.uint8)
    truth[1:3, 2:7, 1:5] = 1
    image = sitk.GetImageFromArray(truth)
    image.SetSpacing((0.5, 0.6, 3.0))
    image.SetOrigin((5, 6, 7))
    for name, stored in (("r", image), ("p", sitk.DICOMOrient(image, "SAR")), ("q", sitk.DICOMOrient(image, "SAR"))):
        (tmp_path / name).mkdir()
        if name == "q":
            stored.SetOrigin((0, 0, 0))
        sitk.WriteImage(stored, str(tmp_path / name / "a.nii.gz"))
    found = score_folder(tmp_path / "p", tmp_path / "r", metrics=["dice", "hd95"], progress=False)
    assert found.scores[0].values == {"dice": 1.0, "hd95": 0.0}
    with pytest.raises(OsasisError, match=r"one size"):
        score_folder(tmp_path / "q", tmp_path / "r", metrics=["dice"], progress=False)
