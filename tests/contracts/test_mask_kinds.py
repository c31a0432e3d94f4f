"""One mask means the same to every command that reads it, or is refused by all of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.datasets import Case, read_masks
from nnunet_osasis.evaluation.metrics import score_folder
from nnunet_osasis.images.io import read_image
from nnunet_osasis.images.masks import label_map, mask_on
from nnunet_osasis.nnunet.prepare.labels import LabelRule
from nnunet_osasis.nnunet.prepare.reading import read_any

ROWS, COLUMNS = np.mgrid[0:48, 0:64]
DISC = ((ROWS - 20) ** 2 + (COLUMNS - 30) ** 2 < 80).astype(np.uint8)
WHITE = DISC * np.uint8(255)
NOTHING = np.zeros_like(DISC)


def jpeg(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG", quality=75)
    return stream.getvalue()


def palette(indices: np.ndarray, *colors: tuple[int, int, int]) -> Image.Image:
    picture = Image.fromarray(indices)
    picture.putpalette([*np.ravel(colors), *[0] * (768 - 3 * len(colors))])
    return picture


def anti_aliased() -> np.ndarray:
    fine = np.kron(DISC, np.ones((4, 4), np.uint8)) * np.uint8(255)
    return np.array(Image.fromarray(np.roll(fine, 1, 1)).resize((64, 48), Image.Resampling.BOX))


READ: dict[str, Any] = {
    **{f"0 and {value}": DISC * np.uint8(value) for value in (1, 128, 254, 255)},
    "16 bits": DISC.astype(np.uint16) * 65535,
    "soft edges": anti_aliased(),
    "JPEG": jpeg(WHITE),
    "JPEG of three channels": jpeg(np.dstack([WHITE] * 3)),
    "three equal channels": np.dstack([WHITE] * 3),
    "bools": DISC > 0,
    "32-bit integers": DISC.astype(np.int32),
    "fractions 0.0 and 1.0": DISC.astype(np.float32),
    "64-bit integers, huge": DISC.astype(np.uint64) << np.uint64(40),
    "white on a clear ground": Image.fromarray(np.dstack([WHITE | np.uint8(255)] * 3 + [WHITE])),
    "a red brush on a clear ground": Image.fromarray(np.dstack([WHITE, NOTHING, NOTHING, WHITE])),
    "black, the mask in the opacity": Image.fromarray(np.dstack([NOTHING, WHITE])),
    "a palette of colors": palette(DISC, (0, 0, 0), (128, 0, 0)),
    "a palette that is upside down": palette(1 - DISC, (255, 255, 255), (0, 0, 0)),
}
REFUSED: dict[str, Any] = {
    "1 and 2": DISC + 1,
    "classes": DISC + (COLUMNS > 40).astype(np.uint8) * (1 - DISC) * 2,
    "VOC's classes and 255": np.where(DISC, COLUMNS % 21, np.where(ROWS > 44, 255, 0)).astype(np.uint8),
    "a soft map": np.array(Image.fromarray(WHITE).resize((16, 12)).resize((64, 48), Image.Resampling.BILINEAR)),
    "probabilities": (DISC * 0.7).astype(np.float32),
    "NaN": np.where(DISC, 1, np.nan).astype(np.float32),
    "below zero": DISC.astype(np.int16) * -1,
    "one channel per class": np.stack([1 - DISC, DISC]),
    "colors": np.dstack([WHITE, NOTHING, NOTHING]),
    "opacity that contradicts the colors": Image.fromarray(np.dstack([WHITE, NOTHING, NOTHING, 255 - WHITE])),
}
REFUSED_AS_ONE_FOREGROUND = ("1 and 2", "classes", "VOC's classes and 255")


def write(folder: Path, mask: Any) -> Path:
    if isinstance(mask, bytes):
        path = folder / "m.jpg"
        path.write_bytes(mask)
    elif isinstance(mask, Image.Image) or (mask.dtype == np.uint8 and (mask.ndim == 2 or mask.shape[-1] == 3)):
        path = folder / "m.png"
        (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(path)
    else:
        path = folder / "m.tif"
        tifffile.imwrite(path, mask, **({} if mask.ndim == 2 else {"photometric": "minisblack"}))
    return path


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Folders of images, masks and predictions with one case, ``m``; its mask is still to be written."""
    found = {name: tmp_path / name for name in ("images", "masks", "predictions")}
    for folder in found.values():
        folder.mkdir()
    Image.fromarray(np.dstack([DISC * 90 + 40] * 3).astype(np.uint8)).save(found["images"] / "m.png")
    Image.fromarray(WHITE).save(found["predictions"] / "m.png")
    return found


def readers(places: dict[str, Path], mask: Path) -> dict[str, Any]:
    """How each command reads a mask: ``{command: function}``, which returns labels."""
    image = places["images"] / "m.png"

    def scored() -> np.ndarray:
        result = score_folder(places["predictions"], places["masks"], metrics=["dice"], progress=False)
        return DISC if result.scores[0].values["dice"] == 1 else NOTHING

    return {
        "osasis-prepare": lambda: LabelRule().convert(mask_on(read_image(image), read_any(mask))[None]),
        "osasis-report": lambda: Case("m", image, mask, "m").mask(64),
        "osasis-stylize": lambda: label_map(mask_on(read_image(image), read_image(mask))) > 0,
        "osasis-evaluate": scored,
    }


@pytest.mark.parametrize("name", READ)
def test_every_command_finds_the_same_foreground(name: str, places: dict[str, Path]) -> None:
    for command, read in readers(places, write(places["masks"], READ[name])).items():
        assert np.array_equal(read(), DISC), command


@pytest.mark.parametrize("name", REFUSED)
def test_no_command_takes_what_may_mean_something_else(name: str, places: dict[str, Path]) -> None:
    for command, read in readers(places, write(places["masks"], REFUSED[name])).items():
        if command == "osasis-stylize" and name in REFUSED_AS_ONE_FOREGROUND:
            assert read().any()  # the gate takes labels as they are
            continue
        with pytest.raises(OsasisError) as caught:
            read()
        assert "m." in str(caught.value) or command in ("osasis-prepare", "osasis-stylize")


@pytest.mark.parametrize("value", [2, 100])
def test_a_dark_foreground_is_a_mask_to_all_and_never_another_label_to_the_scoring(
    value: int, places: dict[str, Path]
) -> None:
    reading = readers(places, write(places["masks"], DISC * np.uint8(value)))
    with pytest.raises(OsasisError, match=f"255 in .* for the classes {value}"):
        reading.pop("osasis-evaluate")()
    assert all(np.array_equal(read(), DISC) for read in reading.values())


@pytest.mark.parametrize("tags", [(orientation, orientation) for orientation in range(1, 9)])
def test_image_and_mask_of_one_orientation_tag_fit(tags: tuple[int, int], places: dict[str, Path]) -> None:
    mask = tagged(places, tags)
    for command, read in readers(places, mask).items():
        if command != "osasis-evaluate":
            bright = read_image(places["images"] / "m.png").array[0] > 100
            assert np.array_equal(read() > 0, bright), command


@pytest.mark.parametrize("tags", [(3, 1), (1, 2), (6, 8), (6, 1)])
def test_a_pair_that_only_one_tag_turned_is_refused(tags: tuple[int, int], places: dict[str, Path]) -> None:
    mask = tagged(places, tags)
    for command, read in readers(places, mask).items():
        if command != "osasis-evaluate":
            with pytest.raises(OsasisError, match="orientation"):
                read()
    (places["predictions"] / "m.png").write_bytes((places["images"] / "m.png").read_bytes())
    with pytest.raises(OsasisError, match=r"Reference and prediction must have the same orientation"):
        score_folder(places["predictions"], places["masks"], scale=255, progress=False)


def test_a_mask_that_was_turned_by_hand_fits_by_its_size(places: dict[str, Path]) -> None:
    tagged(places, (6, 1))
    mask = write(places["masks"], np.ascontiguousarray(np.rot90(DISC, -1)))
    for command, read in readers(places, mask).items():
        if command != "osasis-evaluate":
            assert np.array_equal(read() > 0, read_image(places["images"] / "m.png").array[0] > 100), command


def tagged(places: dict[str, Path], tags: tuple[int, int]) -> Path:
    """Write image and mask with two orientation tags; return the mask."""
    for path, array, tag in zip(
        (places["images"] / "m.png", places["masks"] / "m.png"), (DISC * 90 + 40, WHITE), tags, strict=True
    ):
        exif = Image.Exif()
        exif[274] = tag
        Image.fromarray(array.astype(np.uint8)).save(path, exif=exif)
    return places["masks"] / "m.png"


@pytest.mark.parametrize("side", [64, 48, 33, 20])
def test_small_things_keep_their_area_when_masks_are_reduced(side: int, places: dict[str, Path]) -> None:
    """Any overlap would make thin things thick; the share of foreground is cut at one half."""
    dots = ((ROWS % 12 < 5) & (COLUMNS % 12 < 5)).astype(np.uint8)
    reduced = Case("m", places["images"] / "m.png", write(places["masks"], dots), "m").mask(side)
    assert reduced.shape == (round(48 * side / 64), side)
    assert reduced.mean() == pytest.approx(dots.mean(), rel=0.3)


def test_an_experiments_masks_hold_foreground_of_one_value(places: dict[str, Path]) -> None:
    image = places["images"] / "m.png"
    case = Case("m", image, write(places["masks"], NOTHING), "m")
    with pytest.raises(OsasisError, match=r"The set: the masks must hold foreground.*m\.png"):
        read_masks([case], 64, what="The set")
    (places["masks"] / "other").mkdir()
    others = [Case("m", image, write(places["masks"], DISC), "m")]
    others.append(Case("n", image, write(places["masks"] / "other", DISC * np.uint8(2)), "n"))
    with pytest.raises(OsasisError, match="the values 1, 2"):
        read_masks(others, 64, what="The set")
