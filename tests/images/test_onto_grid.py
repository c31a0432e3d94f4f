"""Masks are paired with images by place, whatever the order their voxels are stored in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.images.image import Geometry, LoadedImage, onto_grid


def loaded(array: np.ndarray, geometry: Geometry | None) -> LoadedImage:
    """``(Z, Y, X)`` as readers return it: a single slice has no axis of its own."""
    return LoadedImage(array[None, 0] if len(array) == 1 else array[None], Path("mask.nii"), geometry)


@pytest.mark.parametrize("seed", range(30))
def test_any_order_of_axes_comes_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    spacing, origin, sides = rng.uniform(0.3, 4, 3), rng.normal(size=3) * 50, rng.integers(1, 5, 3)  # x, y, z
    values = rng.normal(size=sides[::-1])
    image = loaded(values, Geometry.of(spacing, origin, turn))
    order, flipped = rng.permutation(3), rng.integers(0, 2, 3).astype(bool)
    stored = values.transpose(2, 1, 0).transpose(*order)
    stored = np.flip(stored, np.flatnonzero(flipped)).transpose(2, 1, 0)
    signs = np.where(flipped, -1, 1)
    first = (turn * spacing)[:, order] @ np.where(flipped, sides[order] - 1, 0) + origin
    mask = loaded(stored, Geometry.of(spacing[order], first, turn[:, order] * signs))
    assert np.array_equal(onto_grid(mask, image), image.array)


def test_masks_elsewhere_are_refused_and_unplaced_ones_are_taken_as_stored() -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    image = loaded(values, Geometry.of([1, 1, 3], [5, 6, 7], np.eye(3)))
    for geometry in (None, Geometry.of([1, 1, 1], [0, 0, 0], np.eye(3))):
        assert np.array_equal(onto_grid(loaded(values, geometry), image), values[None])
    for geometry in (
        Geometry.of([1, 1, 3], [5, 6, 8], np.eye(3)),
        Geometry.of([1, 1, 2], [5, 6, 7], np.eye(3)),
        Geometry.of([1, 1, 3], [5, 6, 7], np.diag([-1, 1, 1])),
    ):
        with pytest.raises(OsasisError, match="same geometry"):
            onto_grid(loaded(values, geometry), image)
