"""Image distances react to what they should, and the reference is an ordinary image."""

from __future__ import annotations

import numpy as np

from nnunet_osasis.evaluation.experiment.domains import choose_reference
from nnunet_osasis.maps.distance import ciede2000, distances, psnr, ssim
from nnunet_osasis.synthetic.phantoms import render_pair


def pair() -> tuple[np.ndarray, np.ndarray]:
    """A phantom scene by two cameras, ``(3, 48, 48)`` uint8."""
    image, truth, _ = render_pair(0, 48)
    return np.moveaxis(image, -1, 0), np.moveaxis(truth, -1, 0)


def test_equal_pictures_have_no_distance():
    image, _ = pair()
    assert psnr(image, image) == 99 and ciede2000(image, image) == 0 and ssim(image, image) == 1


def test_distances_grow_with_the_change():
    image, truth = pair()
    half = ((image.astype(int) + truth) // 2).astype(np.uint8)
    assert psnr(image, truth) < psnr(half, truth)
    assert ssim(image, truth) < ssim(half, truth)
    assert ciede2000(image, truth) > ciede2000(half, truth)


def test_distances_are_taken_picture_by_picture():
    image, truth = pair()
    found = distances([image, truth], [truth, truth])
    assert found["psnr"] == [round(psnr(image, truth), 4), 99.0]
    assert len(distances([image] * 9, [truth] * 9, most=4)["ssim"]) == 4


def test_reference_is_the_most_ordinary_colour():
    images = [np.full((3, 8, 8), level, dtype=np.uint8) for level in (10, 120, 128, 250)]
    assert choose_reference(images) in (1, 2)


def test_grey_pictures_have_distances_too():
    image, truth = pair()
    assert ciede2000(image[:1], truth[:1]) > 0 and choose_reference([image[:1], truth[:1]]) in (0, 1)
