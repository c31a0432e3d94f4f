"""Which pictures an experiment takes: names, ranges, order, groups, sizes, and what its masks mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.experiment.config import ImageSet
from nnunet_osasis.evaluation.experiment.datasets import group_of, manifest, read_pair, reduced, select_cases
from nnunet_osasis.evaluation.experiment.from_folders import folders_experiment

from .sites import disc, picture, save, write_site


def chosen(data: Path, **more: Any) -> list[str]:
    return [case.name for case in select_cases(ImageSet(images="images", masks="masks", **more), data, what="It")]


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images 1 to 12, and two with words."""
    return write_site(tmp_path_factory.mktemp("data"), [*(str(i) for i in range(1, 13)), "p2_left", "p10_left"])


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({}, [*map(str, range(1, 13)), "p2_left", "p10_left"]),
        ({"include": ("2-4",)}, ["2", "3", "4"]),
        ({"include": ("11-99", "1")}, ["1", "11", "12"]),
        ({"include": ("p*",)}, ["p2_left", "p10_left"]),
        ({"include": ("*_left", "3")}, ["3", "p2_left", "p10_left"]),
        ({"include": ("1-12",), "every": 5}, ["1", "6", "11"]),
        ({"include": ("1?",)}, ["10", "11", "12"]),
    ],
)
def test_cases_are_chosen_by_name_range_and_pattern_in_counting_order(
    rules: dict[str, Any], expected: list[str], numbered: Path
) -> None:
    assert chosen(numbered, **rules) == expected


def test_a_name_with_brackets_is_found_by_its_own_name(tmp_path: Path) -> None:
    write_site(tmp_path, ["frame [1]", "frame 2"])
    assert chosen(tmp_path, include=("frame [1]",)) == ["frame [1]"]


def test_sets_that_cannot_be_used_are_refused_by_name(numbered: Path, tmp_path: Path) -> None:
    with pytest.raises(OsasisError, match="at least one case"):
        chosen(numbered, include=("90-99",))
    save(tmp_path / "images" / "1.png", picture(0))
    with pytest.raises(OsasisError, match=r"no folder .*masks"):
        chosen(tmp_path)
    save(tmp_path / "masks" / "2.png", disc(0))
    with pytest.raises(OsasisError, match="It: every image needs a mask; got 1 without, such as 1"):
        chosen(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    write_site(tmp_path, ["1", "2"])
    save(tmp_path / "images" / "1.bmp", picture(9))
    with pytest.raises(OsasisError):
        chosen(tmp_path)


@pytest.mark.parametrize(
    ("stem", "rule", "group"),
    [
        ("p12_left", "", "p12_left"),
        ("p12_left", r"^p\d+", "p12"),
        ("p12_left", r"^p(\d+)", "12"),
        ("7", (1, 5, 20), "sequence 5"),
        ("20", (20, 5, 1), "sequence 20"),
        ("2", (5, 20), "sequence 0"),
    ],
)
def test_a_group_is_named_by_expression_or_by_where_sequences_begin(stem: str, rule: Any, group: str) -> None:
    assert group_of(stem, rule) == group


def test_a_group_rule_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OsasisError, match="does not fit left_12"):
        group_of("left_12", r"^p\d+")
    with pytest.raises(OsasisError, match="numbers; got p12"):
        group_of("p12", (1, 5))


def test_masks_of_one_and_of_255_mean_the_same_and_soft_ones_are_cut_at_half(tmp_path: Path) -> None:
    mask = disc(0, size=(24, 30))
    rng = np.random.default_rng(0)
    soft = np.where(mask, 255 - rng.integers(0, 20, mask.shape), rng.integers(0, 20, mask.shape)).astype(np.uint8)
    soft[0, :2] = 100  # an edge below one half
    for name, stored in {"1": mask, "2": mask * np.uint8(255), "3": soft, "4": mask * np.uint8(0)}.items():
        save(tmp_path / "images" / f"{name}.png", picture(0, size=(24, 30)))
        save(tmp_path / "masks" / f"{name}.png", stored)
    cases = select_cases(ImageSet(images="images", masks="masks"), tmp_path, what="It")
    found = [case.mask(30) for case in cases]
    assert all(np.array_equal(each, mask) and each.dtype == np.uint8 for each in found[:3])
    assert not found[3].any()  # an image without a lesion


def test_a_mask_of_two_values_without_a_black_is_refused_with_its_file(tmp_path: Path) -> None:
    save(tmp_path / "images" / "1.png", picture(0))
    save(tmp_path / "masks" / "1.png", np.where(disc(0), 230, 12).astype(np.uint8))
    case = select_cases(ImageSet(images="images", masks="masks"), tmp_path, what="It")[0]
    with pytest.raises(OsasisError, match=r"2 values \(12, 230\).*1\.png"):
        case.mask(32)


@pytest.mark.parametrize("value", [2, 100])
def test_two_values_are_a_mask_whatever_the_second_is(value: int, tmp_path: Path) -> None:
    save(tmp_path / "images" / "1.png", picture(0))
    save(tmp_path / "masks" / "1.png", disc(0) * np.uint8(value))
    image, mask = read_pair(tmp_path / "images" / "1.png", tmp_path / "masks" / "1.png", 32)
    assert np.array_equal(image, picture(0)) and np.array_equal(mask, disc(0))


def test_a_mask_of_another_size_is_refused_with_its_file(tmp_path: Path) -> None:
    save(tmp_path / "images" / "1.png", picture(0))
    save(tmp_path / "masks" / "1.png", disc(0, size=(30, 32)))
    case = select_cases(ImageSet(images="images", masks="masks"), tmp_path, what="It")[0]
    with pytest.raises(OsasisError, match=r"\(32, 32\) and \(30, 32\) .*1\.png"):
        case.mask(32)


@pytest.mark.parametrize(
    ("size", "side", "expected"), [((60, 80), 40, (30, 40)), ((80, 60), 40, (40, 30)), ((20, 30), 40, (20, 30))]
)
def test_images_and_masks_shrink_together_and_never_grow(
    size: tuple[int, int], side: int, expected: tuple[int, int], tmp_path: Path
) -> None:
    save(tmp_path / "images" / "1.png", picture(0, size=size))
    save(tmp_path / "masks" / "1.png", disc(0, size=size) * np.uint8(255))
    case = select_cases(ImageSet(images="images", masks="masks"), tmp_path, what="It")[0]
    image, mask = case.image(side), case.mask(side)
    assert image.shape == (3, *expected) and mask.shape == expected
    assert mask.mean() == pytest.approx(disc(0, size=size).mean(), rel=0.1)
    assert set(np.unique(mask)) == {0, 1}
    assert image.mean() == pytest.approx(picture(0, size=size).mean(), rel=0.01)


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * np.uint8(200)
    assert np.unique(reduced(board[None].astype(np.uint8), 32)).tolist() == [100]


@pytest.mark.parametrize("kind", ["16 bit", "volume"])
def test_what_is_no_8_bit_picture_is_refused(kind: str, tmp_path: Path) -> None:
    import tifffile

    write_site(tmp_path, ["1"])
    (tmp_path / "images" / "1.png").unlink()
    array = picture(0)[0].astype(np.uint16) * 100 if kind == "16 bit" else np.stack([picture(0)[0]] * 5)
    tifffile.imwrite(tmp_path / "images" / "1.tif", array)
    with pytest.raises(OsasisError, match="8-bit pictures"):
        select_cases(ImageSet(images="images", masks="masks"), tmp_path, what="It")[0].image(32)


def test_the_manifest_knows_pixels_not_files_and_opens_no_mask(tmp_path: Path) -> None:
    write_site(tmp_path, ["1", "2"])
    save(tmp_path / "images" / "2.bmp", picture(0))
    (tmp_path / "images" / "2.png").unlink()
    for mask in (tmp_path / "masks").iterdir():
        mask.write_text("no picture")
    rows = manifest(select_cases(ImageSet(images="images", masks="masks"), tmp_path, what="It"))
    assert rows[0]["sha256"] == rows[1]["sha256"]
    assert [row["name"] for row in rows] == ["1", "2"] and rows[0]["size"] == [3, 32, 32]


def test_two_folders_become_an_experiment_whose_patients_stay_on_one_side(tmp_path: Path) -> None:
    write_site(tmp_path / "a", [f"p{patient}_{i}" for patient in range(8) for i in range(3)])
    write_site(tmp_path / "b", [f"p{patient}_0" for patient in range(4)], first=90)
    made = folders_experiment(tmp_path / "a", tmp_path / "b", tmp_path, groups=r"^p\d+")
    train, test = (select_cases(part, tmp_path, what="It") for part in (made.train, made.test))
    assert len(test) == 6 and len(train) == 18
    assert {case.group for case in train}.isdisjoint(case.group for case in test)
    assert made == folders_experiment(tmp_path / "a", tmp_path / "b", tmp_path, groups=r"^p\d+")
    assert made.methods[0].kind == "none" and {m.kind for m in made.methods} >= {"identity", "fda", "osasis"}


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [(4, 4, "6 training"), (8, 4, "3 in-domain test"), (16, 2, "3 target")],
)
def test_too_few_images_for_two_folders_are_refused(source: int, target: int, message: str, tmp_path: Path) -> None:
    write_site(tmp_path / "a", (str(i) for i in range(source)))
    write_site(tmp_path / "b", (str(i) for i in range(target)), first=90)
    with pytest.raises(OsasisError, match=f"at least {message}"):
        folders_experiment(tmp_path / "a", tmp_path / "b", tmp_path)
