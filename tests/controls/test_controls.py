"""The controls: every one obeys the StyleTransfer contract, and each does what its name says."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from nnunet_osasis.controls import (
    CONTROLS,
    GIN,
    ColorJitter,
    FourierDomainAdaptation,
    HistogramMatching,
    HistogramShift,
    Identity,
    PooledReinhard,
    RandomControl,
    Reinhard,
)
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.synthetic.phantoms import render_pair
from nnunet_osasis.transfer import StyleTransfer


def _picture(seed: int, *, scanner: int = 0) -> np.ndarray:
    """Phantom picture ``(3, 32, 32)`` uint8."""
    return np.moveaxis(render_pair(seed, 32)[scanner], -1, 0)


SOURCES = [_picture(seed) for seed in range(3)]
REFERENCE = _picture(9, scanner=1)
GRAY_SOURCES = [image[:1].astype(np.float32) * 3.7 - 500 for image in SOURCES]
GRAY_REFERENCE = REFERENCE[:1].astype(np.float32) * 5.1 - 700

TWO_SOURCES = [np.concatenate([image, 90 - image]) for image in GRAY_SOURCES]
TWO_REFERENCE = np.concatenate([GRAY_REFERENCE, 500 + GRAY_REFERENCE])


def _controls(sources: list[np.ndarray], reference: np.ndarray) -> dict[str, tuple[object, np.ndarray]]:
    channels = reference.shape[0]
    made = (
        HistogramMatching(reference),
        PooledReinhard.fit(sources, reference),
        Reinhard(reference),
        FourierDomainAdaptation(reference, beta=0.1),
        Identity(channels),
        GIN(channels),
        ColorJitter(channels),
        HistogramShift(channels),
    )
    return {f"{type(control).__name__}-{channels}": (control, sources[0]) for control in made}


CASES = {
    **_controls(SOURCES, REFERENCE),
    **_controls(GRAY_SOURCES, GRAY_REFERENCE),
    **_controls(TWO_SOURCES, TWO_REFERENCE),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def test_every_control_is_under_contract():
    assert {type(control) for control, _ in CASES.values()} == set(CONTROLS)


def test_satisfies_protocol_and_keeps_shape(case):
    control, image = case
    assert isinstance(control, StyleTransfer)
    assert control.in_channels == image.shape[0]
    result = control.stylize_array(image)
    assert result.shape == image.shape and result.dtype == np.float32 and np.isfinite(result).all()
    assert np.array_equal(result, image) == isinstance(control, Identity)


def test_result_stays_in_native_units(case):
    control, image = case
    result = control.stylize_array(image)
    bounds = control.value_range
    if isinstance(control, RandomControl):
        assert bounds is None
        bounds = (0.0, 255.0) if image.dtype == np.uint8 else (image.min(), image.max())
    if not isinstance(control, Identity):
        low, high = bounds
        assert low - 1e-3 <= result.min() and result.max() <= high + 1e-3
        assert bounds == (0.0, 255.0) or image.shape[0] != 3


def test_strength_zero_is_an_equal_copy_and_half_is_half_way(case):
    control, image = case
    untouched = control.stylize_array(image, strength=0)
    assert np.array_equal(untouched, image) and not np.shares_memory(untouched, image)
    full, half = control.stylize_array(image), control.stylize_array(image, strength=0.5)
    np.testing.assert_allclose(half, (image + full) / 2, atol=2e-3)
    assert np.array_equal(full, control.stylize_array(image, strength=1))


def test_input_is_left_alone_and_result_repeats(case):
    control, image = case
    before = image.copy()
    assert np.array_equal(control.stylize_array(image), control.stylize_array(image))
    assert np.array_equal(before, image)


def test_volumes_keep_their_shape_and_are_treated_slice_by_slice_or_as_a_whole(case):
    control, image = case
    volume = np.stack([image, image[:, ::-1] // 2 if image.dtype == np.uint8 else image[:, ::-1] / 2], axis=1)
    result = control.stylize_array(volume)
    assert result.shape == volume.shape and result.dtype == np.float32
    if isinstance(control, Reinhard | RandomControl):
        twice = control.stylize_array(np.stack([image, image], axis=1))
        assert np.array_equal(twice[:, 0], twice[:, 1])
    else:
        for depth in range(2):
            assert np.array_equal(result[:, depth], control.stylize_array(volume[:, depth]))


def test_controls_survive_pickle(case):
    control, image = case
    before = pickle.dumps(control)
    expected = control.stylize_array(image)
    copy = pickle.loads(before)  # noqa: S301
    assert copy.fingerprint == control.fingerprint
    assert np.array_equal(copy.stylize_array(image), expected)
    assert pickle.dumps(control) == before  # caches that hash the pickle must not see a change after use


def test_eight_bit_and_float_copies_of_a_picture_agree(case):
    control, image = case
    assert np.array_equal(control.stylize_array(image), control.stylize_array(image.astype(np.float64)))


def test_wrong_inputs_are_named(case):
    control, image = case
    holed = image.astype(np.float32)
    holed[0, 0, 0] = np.nan
    for bad in (image[0], image[None, None], np.concatenate([image, image]), holed):
        with pytest.raises(OsasisError):
            control.stylize_array(bad)
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(OsasisError, match="strength"):
            control.stylize_array(image, strength=strength)


def test_fingerprints_tell_controls_and_references_apart():
    others = [
        HistogramMatching(SOURCES[1]),
        PooledReinhard.fit(SOURCES, SOURCES[1]),
        PooledReinhard.fit(SOURCES[:2], REFERENCE),
        Reinhard(SOURCES[1]),
        Reinhard(REFERENCE, value_range=(0, 200)),
        FourierDomainAdaptation(SOURCES[1], beta=0.1),
        FourierDomainAdaptation(REFERENCE, beta=0.2),
        GIN(3, seed=1),
        GIN(3, layers=2),
        GIN(3, alpha=(0, 0.5)),
        GIN(3, value_range=(0, 255)),
        ColorJitter(3, seed=1),
        ColorJitter(3, brightness=0.1),
        ColorJitter(3, gamma=(1, 2)),
        HistogramShift(3, seed=1),
        HistogramShift(3, control_points=5),
    ]
    prints = [control.fingerprint for control, _ in CASES.values()] + [other.fingerprint for other in others]
    assert len(set(prints)) == len(prints) and all(len(digest) == 64 for digest in prints)
    assert HistogramMatching(REFERENCE).fingerprint == HistogramMatching(REFERENCE.astype(np.float32)).fingerprint


def test_histogram_matching_gives_the_reference_distribution():
    result = HistogramMatching(REFERENCE).stylize_array(SOURCES[0])
    for channel in range(3):
        deciles = np.arange(10, 100, 10)
        assert np.abs(np.percentile(result[channel], deciles) - np.percentile(REFERENCE[channel], deciles)).max() < 3


def test_pooled_reinhard_moves_the_set_not_each_image():
    """Differences between patients survive: only the statistics of the whole set become the reference's."""
    control = PooledReinhard.fit(GRAY_SOURCES, GRAY_REFERENCE, value_range=(-1e5, 1e5))
    moved = np.stack([control.stylize_array(image) for image in GRAY_SOURCES])
    assert abs(moved.mean() - GRAY_REFERENCE.mean()) < 0.05
    assert abs(moved.std() / GRAY_REFERENCE.std() - 1) < 1e-3
    assert moved.mean(axis=(1, 2, 3)).std() > 1


def test_pooled_reinhard_survives_json(tmp_path):
    control = PooledReinhard.fit(SOURCES, REFERENCE)
    loaded = PooledReinhard.load(control.save(tmp_path / "reinhard.json"))
    assert loaded.fingerprint == control.fingerprint
    assert np.array_equal(loaded.stylize_array(SOURCES[1]), control.stylize_array(SOURCES[1]))


def test_eight_bit_pictures_read_as_float_are_still_colour():
    """nnU-Net hands over float32 that went through a division by 255: still CIELAB, still clipped to 0..255."""
    floats = [(image[:, None] / np.float32(255)).astype(np.float32) * np.float32(255) for image in SOURCES]
    control = PooledReinhard.fit(floats, REFERENCE[:, None].astype(np.float32))
    assert control.statistics.space == "lab" and control.value_range == (0.0, 255.0)
    expected = PooledReinhard.fit(SOURCES, REFERENCE).stylize_array(SOURCES[0])
    np.testing.assert_allclose(control.stylize_array(floats[0])[:, 0], expected, atol=0.01)


def test_pooled_reinhard_flat_source_is_shifted_without_explosion():
    flat = np.full((1, 8, 8), 7.0)
    result = PooledReinhard.fit([flat], GRAY_REFERENCE).stylize_array(flat)
    assert np.isfinite(result).all() and np.ptp(result) == 0


def test_pooled_reinhard_refuses_nothing_and_foreign_channels(tmp_path):
    with pytest.raises(OsasisError, match="at least one"):
        PooledReinhard.fit([], REFERENCE)
    with pytest.raises(OsasisError, match="channel"):
        PooledReinhard.fit(GRAY_SOURCES, REFERENCE)
    (tmp_path / "half.json").write_text('{"space": "lab"}')
    with pytest.raises(OsasisError, match="complete"):
        PooledReinhard.load(tmp_path / "half.json")
