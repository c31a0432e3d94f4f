"""Edge shifts react to what they should, and to nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import shift

from nnunet_osasis.evaluation.experiment.edges import boundary_shifts, edge_shift
from nnunet_osasis.synthetic.phantoms import render_pair

ROWS, COLUMNS = np.mgrid[:64, :64]
MASK = ((ROWS - 32) ** 2 + (COLUMNS - 30) ** 2 < 14**2).astype(np.uint8)


def _disc(offset: float = 0.0) -> np.ndarray:
    """A soft bright disc, ``(3, H, W)`` uint8, moved right by ``offset`` pixels."""
    distance = np.hypot(ROWS - 32, COLUMNS - 30 - offset)
    return np.repeat((60 + 120 / (1 + np.exp(distance - 14)))[None], 3, axis=0).astype(np.uint8)


def test_colour_change_moves_no_edge():
    recoloured = np.clip(_disc() * np.array([0.7, 1.0, 1.2])[:, None, None] + 10, 0, 255).astype(np.uint8)
    shifts = boundary_shifts(_disc(), recoloured, MASK)
    assert len(shifts) > 50 and np.median(shifts) <= 0.25


@pytest.mark.parametrize("offset", [1.0, 2.0])
def test_a_moved_edge_is_measured_in_pixels(offset):
    """Moved sideways by d, the edge moves along its normal by d |cos|, whose median over a circle is 0.71 d."""
    assert np.median(boundary_shifts(_disc(), _disc(offset), MASK)) == pytest.approx(0.71 * offset, abs=0.3)


def test_inverted_contrast_keeps_the_edge():
    assert np.median(boundary_shifts(_disc(), 255 - _disc(), MASK)) == 0


def test_flat_or_empty_pictures_give_no_points():
    flat = np.full((3, 64, 64), 90, dtype=np.uint8)
    assert len(boundary_shifts(flat, flat, MASK)) == 0
    assert len(boundary_shifts(_disc(), _disc(), np.zeros_like(MASK))) == 0
    assert edge_shift([flat], [flat], [MASK]) is None


def test_a_gray_picture_has_edges_too():
    shift_px = edge_shift([_disc()[:1]], [_disc(2.0)[:1]], [MASK])
    assert shift_px is not None and shift_px["median"] == pytest.approx(1.4, abs=0.3) and shift_px["moved"] > 0.5


def test_two_cameras_show_the_polyp_in_one_place():
    """The phantom's own claim, and the floor of the measure: both scanners' pictures fit one mask."""
    shifts = []
    for seed in range(6):
        *views, mask = render_pair(seed, 96, noise=False)
        image_a, image_b = (np.moveaxis(view, -1, 0) for view in views)
        shifts.append(boundary_shifts(image_a, image_b, mask))
    assert np.median(np.concatenate(shifts)) <= 0.5


def test_moving_a_whole_phantom_is_noticed():
    image, _, mask = render_pair(3, 96, noise=False)
    image = np.moveaxis(image, -1, 0)
    moved = shift(image.astype(float), (0, 0, 2), order=1, mode="nearest").astype(np.uint8)
    assert np.median(boundary_shifts(image, moved, mask)) > 0.5
