"""What the gate's scores see, and what they must not see."""

import numpy as np
import pytest
from specimens import draw, second_camera

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import score_structure
from nnunet_osasis.gate.damage import KINDS, fill

SIZE = 96


@pytest.fixture
def scene() -> np.ndarray:
    """``(3, 96, 96)`` in [-1, 1]."""
    return draw(3, size=SIZE).astype(np.float32) / 127.5 - 1


@pytest.fixture
def mask(scene: np.ndarray) -> np.ndarray:
    """The bright disc of the scene."""
    clean = draw(3, size=SIZE).astype(int)
    y, x = np.mgrid[0 : 1 : SIZE * 1j, 0 : 1 : SIZE * 1j]
    rng = np.random.default_rng(3)
    for _ in range(3):
        rng.uniform(0.5, 3, 2), rng.uniform(0, 6)
    cy, cx = rng.uniform(0.3, 0.7, 2)
    assert clean.shape == (3, SIZE, SIZE)
    return (((x - cx) ** 2 + (y - cy) ** 2) < 0.04).astype(np.uint8)


def test_an_image_is_perfect_beside_itself(scene: np.ndarray, mask: np.ndarray) -> None:
    found = score_structure(scene, scene, mask)
    assert found.lesions == 1
    assert all(value > 0.998 for value in found.values().values())


def test_no_change_of_colour_brightness_or_contrast_counts(scene: np.ndarray, mask: np.ndarray) -> None:
    mixed = np.einsum("oi,ihw->ohw", np.array([[0.5, 0.2, 0.1], [0.1, 0.3, 0.2], [0.0, 0.1, 0.6]]), scene) + 0.1
    shaded = mixed * np.linspace(0.7, 1.0, SIZE)
    camera = second_camera(draw(3, size=SIZE)).astype(np.float32) / 127.5 - 1
    for changed in (mixed, shaded, camera):
        found = score_structure(scene, changed.astype(np.float32), mask)
        assert min(found.structure_kept, found.structure_not_invented) > 0.85
        assert found.lesion_edges is not None
        assert found.lesion_edges > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_damage_costs_score(kind: str, scene: np.ndarray, mask: np.ndarray) -> None:
    harmed = KINDS[kind](scene.astype(np.float64), mask.astype(bool), np.random.default_rng(0)).astype(np.float32)
    found, whole = score_structure(scene, harmed, mask), score_structure(scene, scene, mask)
    scores, least = found.values(), whole.values()
    assert any(scores[name] < least[name] - 0.05 for name in scores)


def test_an_erased_lesion_has_lost_its_contrast(scene: np.ndarray, mask: np.ndarray) -> None:
    gone = KINDS["erased"](scene.astype(np.float64), mask.astype(bool), np.random.default_rng(0)).astype(np.float32)
    found = score_structure(scene, gone, mask)
    assert found.lesion_contrast is not None
    assert found.lesion_contrast < 0.5


def test_one_lesion_of_two_is_enough_to_fail() -> None:
    y, x = np.mgrid[:64, :64]
    scene = (0.004 * (x + y) - 0.3)[None].repeat(3, axis=0)
    mask = np.zeros((64, 64), np.uint8)
    for cy, cx in ((16, 16), (46, 46)):
        mask[(y - cy) ** 2 + (x - cx) ** 2 < 36] = 1
    rng = np.random.default_rng(0)
    shown = (scene + 0.4 * mask + 0.02 * rng.standard_normal(scene.shape)).astype(np.float32)
    half = fill(shown, (mask * (y < 32)).astype(bool)).astype(np.float32)
    found = score_structure(shown, half, mask)
    assert found.lesions == 2
    assert found.lesion_contrast is not None
    assert found.lesion_contrast < 0.7


def test_a_lesion_that_the_source_does_not_show_is_not_scored(scene: np.ndarray) -> None:
    flat = np.zeros((3, 40, 40), np.float32)
    mask = np.zeros((40, 40), np.uint8)
    mask[10:20, 10:20] = 1
    found = score_structure(flat, flat, mask)
    assert (found.lesions, found.lesion_contrast) == (0, None)


def test_a_volume_is_as_bad_as_its_worst_slice(scene: np.ndarray) -> None:
    volume = np.stack([scene, scene, scene], axis=1)
    harmed = volume.copy()
    harmed[:, 1] = np.roll(harmed[:, 1], 3, axis=2)
    assert score_structure(volume, volume).structure_not_invented > 0.998
    assert score_structure(volume, harmed).structure_not_invented < 0.8


def test_one_channel_has_mutual_information_and_colour_has_none(scene: np.ndarray) -> None:
    grey = scene[:1]
    assert score_structure(grey, -grey).mutual_information == pytest.approx(1, abs=0.05)
    noise = np.random.default_rng(0).uniform(-1, 1, grey.shape).astype(np.float32)
    shared = score_structure(grey, noise).mutual_information
    assert shared is not None
    assert shared < 0.1
    assert score_structure(scene, scene).mutual_information is None


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 40), (3, 4, 4), (2, 3, 1, 1), (1, 2, 20, 5)])
def test_small_images_are_scored_too(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    found = score_structure(image, image, np.ones(shape[1:], np.uint8))
    assert all(value > 0.99 for value in found.values().values())


def test_sizes_that_differ_are_refused(scene: np.ndarray) -> None:
    with pytest.raises(OsasisError, match="size"):
        score_structure(scene, scene[:, :-1])
    with pytest.raises(OsasisError, match="size"):
        score_structure(scene, scene, np.zeros((4, 4), np.uint8))
