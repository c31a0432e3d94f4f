"""Leaks: what would make a score look better than it is stops the experiment or is listed."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.experiment.config import ImageSet
from nnunet_osasis.evaluation.experiment.datasets import Case, select_cases
from nnunet_osasis.evaluation.experiment.leaks import check_splits

from .sites import picture, save, write_site


def cases(data: Path, folder: str, **more: object) -> list[Case]:
    return select_cases(ImageSet(images=f"{folder}/images", masks=f"{folder}/masks", **more), data, what="It")


def test_the_same_pixels_in_two_sets_are_refused_also_under_other_names(tmp_path: Path) -> None:
    write_site(tmp_path / "a", ["1", "2"])
    write_site(tmp_path / "b", ["x", "y"], first=9)
    save(tmp_path / "b" / "images" / "y.bmp", picture(1))
    (tmp_path / "b" / "images" / "y.png").unlink()
    with pytest.raises(OsasisError, match="2 of train and y of test have equal pixels"):
        check_splits({"train": cases(tmp_path, "a"), "test": cases(tmp_path, "b")})


def test_a_patient_on_both_sides_is_refused_and_named(tmp_path: Path) -> None:
    write_site(tmp_path / "a", ["p1_1", "p1_2", "p2_1"])
    rule = r"^p\d+"
    train = cases(tmp_path, "a", include=("p1_1",), groups=rule)
    with pytest.raises(OsasisError, match="two sets; got p1 in train and test"):
        check_splits({"train": train, "test": cases(tmp_path, "a", include=("p1_2", "p2_1"), groups=rule)})
    check_splits({"train": train, "test": cases(tmp_path, "a", include=("p2_1",), groups=rule)})


def test_patient_one_of_another_folder_is_another_patient(tmp_path: Path) -> None:
    write_site(tmp_path / "a", ["p1_1"])
    write_site(tmp_path / "b", ["p1_1"], first=9)
    found = check_splits({name: cases(tmp_path, name, groups=r"^p\d+") for name in ("a", "b")})
    assert found["near_duplicates"] == []
    assert {name: [row["group"] for row in rows] for name, rows in found["manifest"].items()} == {
        "a": ["p1"], "b": ["p1"],
    }  # fmt: skip


def recompressed(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(np.moveaxis(image, 0, -1)).save(buffer, "JPEG", quality=60)
    return np.moveaxis(np.array(Image.open(buffer)), -1, 0)


def resized(image: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.array(Image.fromarray(np.moveaxis(image, 0, -1)).resize((50, 44))), -1, 0)


COPIES = {
    "recompressed": recompressed,
    "resized": resized,
    "recoloured": lambda image: np.clip(image * np.array([0.7, 1.0, 1.3])[:, None, None] + 10, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.5).astype(np.uint8),
}


@pytest.mark.parametrize("kind", COPIES)
def test_near_copies_in_two_sets_are_listed(kind: str, tmp_path: Path) -> None:
    write_site(tmp_path / "a", ["1", "2", "3"])
    write_site(tmp_path / "b", ["x", "y"], first=9)
    save(tmp_path / "b" / "images" / "x.png", COPIES[kind](picture(2)))
    found = check_splits({name: cases(tmp_path, name) for name in ("a", "b")})["near_duplicates"]
    assert [(pair["first"], pair["second"]) for pair in found] == [("a/3", "b/x")]
    assert 0.985 < found[0]["correlation"] <= 1


def test_unrelated_images_and_copies_within_one_set_are_not_listed(tmp_path: Path) -> None:
    write_site(tmp_path / "a", [str(i) for i in range(12)])
    write_site(tmp_path / "b", [str(i) for i in range(12)], first=50)
    save(tmp_path / "a" / "images" / "12.png", recompressed(picture(3)))
    save(tmp_path / "a" / "masks" / "12.png", np.ones((32, 32), np.uint8))
    assert check_splits({name: cases(tmp_path, name) for name in ("a", "b")})["near_duplicates"] == []


def test_a_flat_picture_is_like_nothing(tmp_path: Path) -> None:
    write_site(tmp_path / "a", ["1"])
    write_site(tmp_path / "b", ["1"], first=9)
    for folder, value in (("a", 9), ("b", 90)):
        save(tmp_path / folder / "images" / "1.png", np.full((3, 32, 32), value, np.uint8))
    assert check_splits({name: cases(tmp_path, name) for name in ("a", "b")})["near_duplicates"] == []


def eye(seed: int) -> np.ndarray:
    """A bright disc on black with a few random lines: what all eyes share is most of the picture."""
    rows, columns = np.mgrid[:64, :64]
    rng = np.random.default_rng(seed)
    light = 150.0 * (np.hypot(rows - 32, columns - 32) < 30)
    for angle, offset in rng.uniform(-1, 1, (5, 2)) * (np.pi, 20):
        distance = np.abs((rows - 32) * np.cos(angle) + (columns - 32) * np.sin(angle) - offset)
        light -= 60 * (distance < 2) * (light > 0)
    return np.clip(light[None] * np.array([1.0, 0.6, 0.3])[:, None, None], 0, 255).astype(np.uint8)


def test_what_all_images_share_makes_no_copies_of_them_and_hides_none(tmp_path: Path) -> None:
    for number in range(12):
        folder = tmp_path / ("a" if number < 6 else "b")
        save(folder / "images" / f"{number}.png", eye(number))
        save(folder / "masks" / f"{number}.png", np.ones((64, 64), np.uint8))
    sets = {name: cases(tmp_path, name) for name in ("a", "b")}
    assert check_splits(sets)["near_duplicates"] == []
    save(tmp_path / "b" / "images" / "copy.png", recompressed(eye(2)))
    save(tmp_path / "b" / "masks" / "copy.png", np.ones((64, 64), np.uint8))
    listed = check_splits({name: cases(tmp_path, name) for name in ("a", "b")})["near_duplicates"]
    assert [(pair["first"], pair["second"]) for pair in listed] == [("a/2", "b/copy")]
