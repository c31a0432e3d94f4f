"""Small lesions on tissue with a texture of its own: erased down to it, each of them has to be missed."""

import numpy as np
import pytest
from scipy import ndimage
from specimens import second_camera

from nnunet_osasis.gate import score_structure
from nnunet_osasis.gate.lesions import VISIBLE, contrast_kept, contrast_to_noise
from nnunet_osasis.gate.thresholds import FLOORS

LEVEL = 1 / 127.5


def tissue(seed: int) -> np.ndarray:
    """``(3, 96, 96)``: blotches, folds and noise."""
    rng = np.random.default_rng(seed)
    blotches = sum(a * ndimage.gaussian_filter(rng.standard_normal((96, 96)), s) * s for a, s in ((40, 3), (120, 9)))
    mixed = np.stack([blotches * weight for weight in (1.0, 0.7, 0.6)]) + rng.normal(0, 2, (3, 96, 96))
    return (LEVEL * mixed).clip(-0.9, 0.9).astype(np.float32)


def disc(size: int, at: tuple[int, int]) -> np.ndarray:
    away = np.hypot(*(np.indices((96, 96)) - np.array(at)[:, None, None]))
    mask = np.zeros((96, 96), bool)
    mask.flat[np.argsort(away, axis=None, kind="stable")[:size]] = True
    return mask


def stylized(image: np.ndarray) -> np.ndarray:
    return second_camera((image + 1) * 127.5).astype(np.float32) / 127.5 - 1


@pytest.mark.parametrize("size", [25, 49, 81, 169, 400])
@pytest.mark.parametrize("seed", range(6))
def test_an_erased_lesion_of_any_size_fails_and_a_kept_one_passes(size: int, seed: int) -> None:
    mask = disc(size, (40 + seed, 50 - seed))
    source = (tissue(seed) + 32 * LEVEL * mask).clip(-1, 1)
    kept, erased = (score_structure(source, stylized(image), mask.astype(np.uint8)) for image in (source, tissue(seed)))
    assert kept.lesions == 1
    assert not kept.failures(FLOORS)
    assert "lesion_contrast" in erased.failures(FLOORS)


def test_one_small_lesion_beside_a_large_one_is_enough() -> None:
    large, small = disc(900, (30, 30)), disc(81, (70, 70))
    whole = (tissue(1) + 32 * LEVEL * (large | small)).clip(-1, 1)
    half = (tissue(1) + 32 * LEVEL * large).clip(-1, 1)
    scores = score_structure(whole, stylized(half), (large | small).astype(np.uint8))
    assert scores.lesions == 2
    assert "lesion_contrast" in scores.failures(FLOORS)


def test_a_small_tumour_in_an_organ_is_compared_with_the_organ() -> None:
    organ, tumour = disc(2500, (48, 48)), disc(49, (44, 52))
    labels = organ.astype(np.uint8) + tumour
    whole = (tissue(2) + 60 * LEVEL * organ + 32 * LEVEL * tumour).clip(-1, 1)
    without = (tissue(2) + 60 * LEVEL * organ).clip(-1, 1)
    assert not score_structure(whole, stylized(whole), labels).failures(FLOORS)
    assert "lesion_contrast" in score_structure(whole, stylized(without), labels).failures(FLOORS)


def test_contrast_to_noise_is_the_mean_difference_in_units_of_the_spread() -> None:
    rng = np.random.default_rng(0)
    shape = np.arange(400) < 100
    image = 0.1 * rng.standard_normal((1, 400)) + 0.3 * shape
    found, apart = contrast_to_noise(image, shape.astype(np.float64))
    assert found == pytest.approx(3, rel=0.1)
    assert apart == pytest.approx(0.3, rel=0.1)
    assert contrast_to_noise(image - 0.3 * shape, shape.astype(np.float64))[0] < VISIBLE


def test_the_share_that_is_kept_is_what_the_formula_says() -> None:
    rng = np.random.default_rng(0)
    shape, texture = (np.arange(400) < 100).astype(np.float64), rng.standard_normal((1, 400))
    source = texture + 3 * shape
    assert contrast_kept(source, 0.2 * source + 7, shape) == pytest.approx(1, abs=0.01)
    assert contrast_kept(source, texture, shape) < 0.2
    assert 0.7 < contrast_kept(source, texture + 1.5 * shape, shape) < 0.97
