"""Gray that is stored as RGB: what counts as gray, and that every command makes the same channel of it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.config import ImageSet
from nnunet_osasis.evaluation.experiment.data import prepare as prepare_experiment
from nnunet_osasis.evaluation.experiment.datasets import select_cases
from nnunet_osasis.evaluation.experiment.from_folders import folders_experiment
from nnunet_osasis.images.gray import ColorSurvey, is_gray, to_gray
from nnunet_osasis.images.io import read_image
from nnunet_osasis.images.slices import read_in_slices
from nnunet_osasis.scripts import prepare, pretrain_stylizer, stylize
from nnunet_osasis.stylizer.stylizer import OSASISStylizer


def plane(seed: int) -> np.ndarray:
    """An uneven gray picture, ``(H, W)`` uint8."""
    rows, columns = np.mgrid[0:48, 0:64]
    values = 110 + 60 * np.sin(columns / 9 + seed) + 40 * np.cos(rows / 7)
    return np.clip(values + np.random.default_rng(seed).normal(0, 8, values.shape), 0, 255).astype(np.uint8)


def as_rgb(gray: np.ndarray, *, marks: bool = False) -> np.ndarray:
    picture = np.dstack([gray] * 3)
    if marks:
        picture[2:6, 2:18] = (250, 200, 20)
    return picture


def color(seed: int) -> np.ndarray:
    return np.clip(as_rgb(plane(seed)) * np.array([1, 0.7, 0.5]), 0, 255).astype(np.uint8)


def jpeg(picture: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=75)
    return np.array(Image.open(stream))


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (as_rgb(plane(0)), True),
        (as_rgb(plane(0), marks=True), True),
        (jpeg(as_rgb(plane(0), marks=True)), True),
        (as_rgb(plane(0)).astype(np.uint16) * 257, True),
        (color(0), False),
        (jpeg(color(0)), False),
        (as_rgb(plane(0)) // 2 + np.array([30, 0, 0], np.uint8), False),
    ],
    ids=["gray", "colored marks", "JPEG", "16 bits", "color", "color JPEG", "tinted"],
)
def test_gray_is_told_from_color(picture: np.ndarray, expected: bool) -> None:
    assert is_gray(np.moveaxis(picture, -1, 0)) == expected


def test_equal_channels_become_that_channel_in_their_own_type() -> None:
    for dtype in (np.uint8, np.uint16, np.float32):
        values = plane(0).astype(dtype)
        made = to_gray(np.stack([values] * 3))
        assert made.dtype == dtype and np.allclose(made[0], values)
        assert np.array_equal(to_gray(values[None]), values[None])
    assert (
        np.abs(to_gray(np.moveaxis(color(1), -1, 0))[0].astype(int) - Image.fromarray(color(1)).convert("L")).max() <= 1
    )


def test_a_set_is_told_whole_in_part_or_not_at_all() -> None:
    survey = ColorSurvey()
    survey.add("gray one", np.zeros((1, 4, 4), np.uint8))
    survey.add("c", np.moveaxis(color(0), -1, 0))
    assert survey.message == ""
    survey.add("g", np.moveaxis(as_rgb(plane(0)), -1, 0))
    assert survey.message.startswith("1 of 2 images are gray, stored as RGB (g)") and "--gray" in survey.message


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """``images`` of gray stored as RGB and ``masks``, and a reference of the same kind and a gray one."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for i in range(6):
        gray = plane(i)
        Image.fromarray(as_rgb(gray, marks=i > 3)).save(tmp_path / f"images/{i}.png")
        Image.fromarray((gray > 170).astype(np.uint8)).save(tmp_path / f"masks/{i}.png")
    Image.fromarray(as_rgb(plane(9) // 2 + 60)).save(tmp_path / "style.png")
    Image.fromarray(plane(9) // 2 + 60).save(tmp_path / "gray_style.png")
    return tmp_path


def prepared(folder: Path, *more: str) -> Path:
    places = ["--images", str(folder / "images"), "--masks", str(folder / "masks"), "-o", str(folder / "raw")]
    prepare.main([*places, "-d", "501", "-name", "A", "--overwrite", *more])
    return folder / "raw/Dataset501_A"


def test_prepare_names_the_remedy_which_makes_one_channel(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(json.loads((prepared(export) / "dataset.json").read_text())["channel_names"]) == 3
    assert "All 6 images are gray, stored as RGB. Give --gray" in caplog.text
    caplog.clear()
    dataset = prepared(export, "--gray")
    assert json.loads((dataset / "dataset.json").read_text())["channel_names"] == {"0": "zscore"}
    assert np.array_equal(np.array(Image.open(dataset / "imagesTr/A_0_0000.png")), plane(0)) and not caplog.text
    Image.fromarray(plane(0)).save(export / "images/0.png")
    with pytest.raises(OsasisError, match=r"one kind.*--gray"):
        prepared(export)
    assert len(list((prepared(export, "--grey") / "imagesTr").iterdir())) == 6


def test_one_stylizer_serves_gray_however_it_is_stored(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    command = ["--images", str(export / "images"), "--style", str(export / "gray_style.png"), "--output"]
    short = ["--stop-after", "maps", "--calibrator-iterations", "2", "-device", "cpu"]
    with pytest.raises(OsasisError, match=r"3 channel\(s\).*--gray"):
        pretrain_stylizer.main([*command, str(export / "wrong"), *short])
    command[3] = str(export / "style.png")
    pretrain_stylizer.main([*command, str(export / "made"), *short, "--gray"])
    assert OSASISStylizer.from_pretrained(export / "made").in_channels == 1
    run = ["-i", str(export / "images"), "--stylizer", str(export / "made"), "-device", "cpu", "-o"]
    with pytest.raises(OsasisError, match=r"1 channel\(s\).*--gray"):
        stylize.main([*run, str(export / "wrong_results")])
    stylize.main([*run, str(export / "results"), "--gray", "--masks", str(export / "masks")])
    assert read_image(export / "results/0.png").array.shape == (1, 48, 64)


def test_a_reference_of_other_channels_is_told_before_the_images_are_read(
    export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr(
        "nnunet_osasis.training.sources.read_in_slices", lambda path: (read.append(path), read_in_slices(path))[1]
    )
    command = ["--images", str(export / "images"), "--style", str(export / "gray_style.png"), "--output"]
    with pytest.raises(OsasisError, match="gray_style"):
        pretrain_stylizer.main([*command, str(export / "s"), "-device", "cpu"])
    assert len(read) == 1


def test_an_experiment_makes_one_channel_of_its_images(export: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = select_cases(ImageSet(images="images", masks="masks", gray=True), export, what="It")[0]
    assert np.array_equal(case.image(64)[0], plane(0))
    for site in ("a", "b"):
        for part in ("images", "masks"):
            (export / site / part).mkdir(parents=True)
        for i in range(14):
            Image.fromarray(as_rgb(plane(i + 20 * (site == "b")))).save(export / site / f"images/{i}.png")
            Image.fromarray((plane(i) > 170).astype(np.uint8)).save(export / site / f"masks/{i}.png")
    made = {gray: prepare_experiment(folders_experiment(export / "a", export / "b", export, gray=gray), export)
            for gray in (False, True)}  # fmt: skip
    assert made[False].channels == 3 and made[True].channels == 1
    assert caplog.text.count("images are gray, stored as RGB. Give --gray") == 1
