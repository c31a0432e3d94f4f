"""Intensities, frames, statistics, colour maps and the guided filter: formulas and properties."""

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
from nnunet_osasis.maps.base import ColorMap
from nnunet_osasis.maps.field_of_view import field_of_view
from nnunet_osasis.maps.local_affine import carry_change, fit_local_affine
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


def test_the_frame_is_dark_and_touches_the_edge_and_a_dark_lumen_is_image() -> None:
    image = torch.zeros(1, 3, 16, 16)
    image[..., :3] = -1
    image[..., 7:10, 7:10] = -1
    view = field_of_view(image)
    assert not view[..., :3].any()
    assert view[..., 7:10, 7:10].all()
    assert field_of_view(torch.full((1, 1, 4, 4), -1.0)).all()


def test_a_dark_scene_that_runs_into_the_frame_stays_image() -> None:
    """A dim lamp: the corner lies below any fixed threshold, but is neither as dark nor as even as the frame."""
    generator = torch.Generator().manual_seed(0)
    image = 0.2 * torch.rand(1, 3, 24, 24, generator=generator) - 0.4
    image[..., :12, :12] = -0.92 + 0.08 * torch.rand(1, 3, 12, 12, generator=generator)
    frame = torch.zeros(24, 24, dtype=torch.bool)
    frame[:3] = frame[-3:] = frame[:, :3] = frame[:, -3:] = True
    image[..., frame] = -1 + 0.01 * torch.rand(1, 3, int(frame.sum()), generator=generator)
    assert torch.equal(field_of_view(image)[0, 0], ~frame)


@pytest.mark.parametrize("level", [-1.0, -0.9, -0.82])
def test_a_frame_need_not_be_black(level: float) -> None:
    image = torch.zeros(1, 3, 16, 16)
    image[..., :3] = level + 0.02 * torch.rand(1, 3, 16, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(~field_of_view(image)[0, 0, 0], torch.arange(16) < 3)


def test_mean_of_maps_applies_like_the_mean_of_results() -> None:
    a, b = ColorMap(((0.5,),), (0.2,)), ColorMap(((1.5,),), (-0.4,))
    x = unit_images(1, channels=1)
    torch.testing.assert_close(ColorMap.mean([a, b])(x), (a(x) + b(x)) / 2)


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
