"""Intensities, statistics, color maps and the guided filter: formulas and properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from specimens import draw, unit_images
from torch.nn import functional as F

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.intensity import IntensityRange, from_unit, infer_range, to_unit
from nnunet_osasis.maps.base import MeanMap
from nnunet_osasis.maps.local_affine import carry_change, fit_local_affine
from nnunet_osasis.maps.parametric import ParametricMap
from nnunet_osasis.maps.resize import resize


@settings(max_examples=50, deadline=None)
@given(low=st.floats(-2000, 1000), span=st.floats(1, 5000), seed=st.integers(0, 99))
def test_native_to_unit_and_back_is_the_identity_even_outside_the_range(low: float, span: float, seed: int) -> None:
    array = np.random.default_rng(seed).uniform(low - span, low + 2 * span, (2, 5, 6)).astype(np.float32)
    bounds = (low, low + span)
    unit = to_unit(array, bounds)
    assert unit.min() >= -1
    assert unit.max() <= 1
    np.testing.assert_allclose(from_unit(unit, bounds, original=array), array, atol=span * 1e-5 + 1e-3)


def test_ranges_are_inferred_by_the_stated_rules() -> None:
    eight_bit = [draw(0), draw(1).astype(np.float32)]
    assert infer_range(eight_bit) == IntensityRange("fixed", 0, 255)
    assert infer_range([draw(0) / 255.0]) == IntensityRange("fixed", 0, 1)
    assert infer_range([draw(0).astype(np.float32) * 7.3]).kind == "percentile"
    assert infer_range([draw(0).astype(np.uint16) * 100]).kind == "percentile"
    hounsfield = [draw(0).astype(np.float32) * 10 - 1000]
    assert infer_range(hounsfield, ["CTNormalization"], (-900, 300)) == IntensityRange("fixed", -900, 300)


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("fixed", 5, 5), ("fixed", 5, 1), ("fixed", 0, np.inf), ("odd", 0, 1)]
)
def test_impossible_ranges_are_refused(kind: str, low: float, high: float) -> None:
    with pytest.raises(OsasisError):
        IntensityRange(kind, low, high)


def test_constant_image_has_no_percentile_range() -> None:
    with pytest.raises(OsasisError, match="contrast"):
        IntensityRange("percentile", 0.5, 99.5).bounds(np.ones((1, 4, 4)))


def test_mean_of_maps_applies_like_the_mean_of_results() -> None:
    a, b = ParametricMap.affine(((0.5,),), (0.2,)), ParametricMap.affine(((1.2,),), (-0.1,))
    x = 0.6 * unit_images(1, channels=1)
    torch.testing.assert_close(a(x), 0.5 * x + 0.2)
    torch.testing.assert_close(MeanMap([a, b])(x), (a(x) + b(x)) / 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_local_affine_reproduces_a_global_affine_change(channels: int) -> None:
    before = unit_images(2, channels=channels)
    after = before * 0.7 + 0.1
    found = carry_change(before, after, before, epsilon=1e-8)
    torch.testing.assert_close(found, after, atol=2e-3, rtol=1e-2)


def test_local_affine_of_no_change_is_the_identity_at_any_size() -> None:
    images = unit_images(1)
    large = F.interpolate(images, size=(77, 53), mode="bicubic")
    torch.testing.assert_close(carry_change(images, images, large), large, atol=1e-5, rtol=1e-5)


def test_carried_change_keeps_finer_edges_than_the_grid_has() -> None:
    yy, xx = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    fine = (((xx // 2 + yy // 2) % 2) * 0.5 - 0.25).float()[None, None]  # a checkerboard lost at 32 px
    scene = fine + (xx / 128 - 0.5)[None, None]
    small = resize(scene, (32, 32))
    found = carry_change(small, small * 0.8 + 0.1, scene)
    upsampled = F.interpolate(small * 0.8 + 0.1, size=(128, 128), mode="bilinear")

    def sharpness(image: torch.Tensor) -> torch.Tensor:
        return (image[..., 1:] - image[..., :-1]).abs().mean()

    assert sharpness(found) > 0.6 * sharpness(scene)
    assert sharpness(upsampled) < 0.2 * sharpness(scene)


def test_local_affine_shapes() -> None:
    slope, offset = fit_local_affine(unit_images(2), unit_images(2))
    assert slope.shape == (2, 3, 3, 32, 32)
    assert offset.shape == (2, 3, 32, 32)
