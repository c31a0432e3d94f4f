"""Patterns of a few pixels that the source has not, and what looks like them but is none."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from specimens import draw

from nnunet_osasis.gate import calibrate_gate, score_structure
from nnunet_osasis.gate.fine import fine_structure
from nnunet_osasis.gate.thresholds import FLOORS
from nnunet_osasis.maps.detail import sharpen

LEVEL = 1 / 127.5
SIDE = 96


def unit(seed: int, size: int = SIDE) -> np.ndarray:
    return draw(seed, size=size).astype(np.float32) / 127.5 - 1


def patterns() -> dict[str, np.ndarray]:
    y, x = np.mgrid[:SIDE, :SIDE]
    board = (y + x) % 2 * 2.0 - 1
    return {
        "checkerboard": 38 * board,
        "fine checkerboard": 4 * board,
        "checkerboard of two pixels": 12 * ((y // 2 + x // 2) % 2 * 2.0 - 1),
        "colored checkerboard": 6 * np.stack([board, -board, 0 * board]),
        "columns": 4 * (x % 2 * 2.0 - 1),
        "rows": 4 * (y % 2 * 2.0 - 1),
        "columns of three": 12.0 * (x % 3 == 0),
        "faint grid": 6.0 * ((y % 16 == 8) | (x % 16 == 8)),
        "patch": 24 * board * ((y < 48) & (x < 48)),
    }


@pytest.mark.parametrize("name", patterns())
def test_a_pattern_of_few_pixels_fails(name: str) -> None:
    source = unit(3)
    painted = (0.8 * source + LEVEL * patterns()[name]).clip(-1, 1).astype(np.float32)
    assert fine_structure(source[None], painted[None]) < FLOORS["fine_structure"]
    assert "fine_structure" in score_structure(source, painted).failures(FLOORS)


def test_a_pattern_that_the_source_has_is_no_new_one() -> None:
    for pattern in patterns().values():
        source = (0.8 * unit(3) + LEVEL * pattern).clip(-1, 1).astype(np.float32)
        assert fine_structure(source[None], 0.7 * source[None]) > 0.6


@pytest.mark.parametrize("noise", [1, 5, 15])
def test_noise_of_any_strength_is_no_structure(noise: float) -> None:
    source = unit(3)
    noisy = source + LEVEL * noise * np.random.default_rng(0).standard_normal(source.shape)
    assert fine_structure(source[None], noisy[None].astype(np.float32)) > 0.5


@pytest.mark.parametrize("amount", [-1.0, 1.5])
def test_sharpness_is_no_new_structure(amount: float) -> None:
    source = unit(3)
    other = sharpen(torch.from_numpy(source)[None], torch.tensor([amount])).clamp(-1, 1).numpy()
    assert fine_structure(source[None], other) > 0.5


@pytest.mark.parametrize("quality", [60, 90])
def test_compression_is_no_structure(quality: int) -> None:
    source = unit(3, size=160)
    stream = io.BytesIO()
    Image.fromarray(np.moveaxis(np.rint((source + 1) * 127.5).astype(np.uint8), 0, -1)).save(
        stream, "JPEG", quality=quality
    )
    decoded = np.moveaxis(np.array(Image.open(stream)), -1, 0).astype(np.float32) / 127.5 - 1
    assert fine_structure(source[None], decoded[None]) > FLOORS["fine_structure"] + 0.1


def test_one_slice_of_a_volume_is_enough() -> None:
    volume = np.stack([unit(3)] * 4)
    painted = volume.copy()
    painted[2] += LEVEL * patterns()["checkerboard"]
    assert fine_structure(volume, painted) < FLOORS["fine_structure"]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_turned_over_fails_without_a_mask(channels: int) -> None:
    source = unit(3)[:channels]
    scores = score_structure(source, -source)
    assert scores.directions < -0.9
    assert scores.failures(FLOORS).keys() == {"directions"}


def test_a_strong_step_through_smooth_tissue_fails() -> None:
    rng = np.random.default_rng(1)
    scenes = [unit(seed) for seed in range(4)]
    least = calibrate_gate(scenes).least
    y, x = np.mgrid[:SIDE, :SIDE]
    source = (unit(7) * 0.2 - 0.5 + 0.6 * (x > 70)).astype(np.float32)  # dark and even, but for a bright side
    jagged = y + 4 * rng.standard_normal(SIDE)[None] > 48
    stepped = source + 24 * LEVEL * jagged * (x < 50)
    found = score_structure(source, stepped.astype(np.float32)).failures(least)
    assert "structure_not_invented" in found
    assert not score_structure(source, source).failures(least)
