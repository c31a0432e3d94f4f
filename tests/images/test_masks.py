"""Masks become labels only where it is plain what they mean."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.masks import (
    binary_labels,
    class_labels,
    foreground_value,
    one_channel,
    require_one_foreground,
)

DISC = np.zeros((96, 96), np.uint8)
DISC[2:5, 3:9] = DISC[20:70, 20:70] = 255


def jpeg(array: np.ndarray, quality: int = 75) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="JPEG", quality=quality)
    return np.array(Image.open(buffer))


@pytest.mark.parametrize("value", [1, 7, 255])
def test_two_values_are_background_and_foreground(value):
    found = binary_labels((DISC > 0) * np.uint8(value), None)
    assert found.dtype == np.uint8 and np.array_equal(found, DISC > 0)


@pytest.mark.parametrize("empty", [0, 255])
def test_empty_and_full_masks_are_allowed(empty):
    assert (binary_labels(np.full((8, 8), empty, np.uint8), None) == (empty > 0)).all()


def test_jpeg_and_soft_edges_are_cut_in_the_middle():
    soft = np.array(Image.fromarray(DISC).filter(ImageFilter.GaussianBlur(0.7)))
    for blurred in (jpeg(DISC), jpeg(DISC, 30), soft):
        assert len(np.unique(blurred)) > 2
        assert (binary_labels(blurred, None) != (DISC > 0)).mean() < 0.01


@pytest.mark.parametrize(
    "bad",
    [
        np.repeat(np.array([0, 1, 2], np.uint8), 32)[None],
        np.repeat(np.array([0, 128, 255], np.uint8), 32)[None],
        np.repeat(np.array([3, 9], np.uint8), 32)[None],
        np.arange(256, dtype=np.uint8)[None],
        np.linspace(0, 1, 64)[None],
    ],
    ids=["classes", "disc and cup", "no background", "a picture", "probabilities"],
)
def test_doubtful_masks_are_refused_with_the_way_out(bad):
    with pytest.raises(OsasisError, match=r"--labels background=0 .* --threshold"):
        binary_labels(bad, None)
    assert set(np.unique(binary_labels(bad, float(np.median(bad))))) == {0, 1}


def test_classes_are_numbered_in_their_order():
    values = np.repeat(np.array([255, 0, 128], np.uint8), 4)[None]
    classes = {"background": 0, "disc": 128, "cup": 255}
    assert class_labels(values, classes).tolist() == [[2] * 4 + [0] * 4 + [1] * 4]
    with pytest.raises(OsasisError, match="also 128"):
        class_labels(values, {"background": 0, "cup": 255})


def test_single_classes_of_a_label_map_are_not_taken_for_binary_masks():
    values = [foreground_value(DISC // 255 * np.uint8(value)) for value in (0, 1, 2)]
    assert values == [None, 1, 2]
    with pytest.raises(OsasisError, match="values 1, 2"):
        require_one_foreground(values)
    require_one_foreground([None, 255, foreground_value(np.array([[0, 254]], np.uint8)), None])


def test_colored_masks_are_refused_and_gray_ones_are_not():
    gray = np.stack([DISC, DISC, DISC])
    assert np.array_equal(one_channel(gray), DISC)
    colors = np.moveaxis(np.array(jpeg(np.stack([DISC] * 3, axis=-1))), -1, 0)
    assert one_channel(colors).shape == DISC.shape
    with pytest.raises(OsasisError, match="colored"):
        one_channel(np.stack([DISC, 255 - DISC, DISC]))


def test_one_channel_per_class_is_not_taken_for_noise():
    """Only the first class would be left, and the label inverted where that is the background."""
    for dtype in (np.uint8, np.float32):
        classes = (np.stack([DISC == 0, DISC > 0]) * 1).astype(dtype)
        with pytest.raises(OsasisError, match="one channel per class"):
            one_channel(classes)
    ignored = np.stack([DISC // 255, 1 - DISC // 255])
    ignored[:, :4] = 255
    with pytest.raises(OsasisError, match="one channel per class"):
        one_channel(ignored)
