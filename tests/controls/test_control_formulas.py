"""Each control's formula, and what is random about the random ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab
from torchvision.transforms import functional

from nnunet_osasis.controls import RANDOM, ColorJitter, FourierDomainAdaptation, HistogramShift, Reinhard
from nnunet_osasis.controls.fourier import AXES, middle
from nnunet_osasis.controls.gin import GIN, GINParameters, draw_gin, gin
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.synthetic.phantoms import render_pair

WIDE = (-1e6, 1e6)


def _picture(seed: int, side: int = 32) -> np.ndarray:
    """Phantom picture ``(3, side, side)`` uint8."""
    return np.moveaxis(render_pair(seed, side)[0], -1, 0)


# --- Reinhard ---------------------------------------------------------------------------------------------------------


def test_reinhard_gives_every_image_the_moments_of_the_reference():
    reference = _picture(9)[:2].astype(np.float64) * 3 - 100
    control = Reinhard(reference, value_range=WIDE)
    for image in (_picture(1)[:2] / 7.0, np.stack([_picture(seed)[:2] for seed in range(3)], axis=1) / 7.0):
        result = control.stylize_array(image).reshape(2, -1)
        np.testing.assert_allclose(result.mean(axis=1), reference.mean(axis=(1, 2)), atol=1e-3)
        np.testing.assert_allclose(result.std(axis=1), reference.std(axis=(1, 2)), rtol=1e-5)


def test_reinhard_works_in_lab_for_eight_bit_colour():
    def moments(picture: np.ndarray) -> np.ndarray:
        lab = rgb2lab(picture / 255.0, channel_axis=0).reshape(3, -1)
        return np.stack([lab.mean(axis=1), lab.std(axis=1)])

    image, reference = 80 + _picture(1) // 4, 70 + _picture(2) // 5  # nothing leaves the gamut
    result = Reinhard(reference).stylize_array(image)
    np.testing.assert_allclose(moments(result), moments(reference), atol=0.05)


# --- Fourier domain adaptation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 40), (20, 17)])
def test_fda_takes_amplitude_inside_the_window_and_keeps_phase_and_the_rest(height: int, width: int):
    rng = np.random.default_rng(0)
    image, reference = rng.uniform(50, 200, (2, 2, height, width))
    control = FourierDomainAdaptation(reference, beta=0.15, value_range=(0, 1e6))
    found = control._stylize_slice(image)  # before clipping
    spectra = [np.fft.fftshift(np.fft.fft2(x, axes=AXES), axes=AXES) for x in (image, reference, found)]
    inside = np.zeros(image.shape, dtype=bool)
    inside[middle(image, control.window(height, width))] = True
    assert inside.sum() == 2 * (2 * int(0.15 * min(height, width)) + 1) ** 2
    source, target, result = spectra
    np.testing.assert_allclose(np.abs(result)[inside], np.abs(target)[inside], rtol=1e-6)
    np.testing.assert_allclose(np.abs(result)[~inside], np.abs(source)[~inside], rtol=1e-6)
    np.testing.assert_allclose(np.exp(1j * np.angle(result)), np.exp(1j * np.angle(source)), atol=1e-6)


def test_fda_without_a_window_moves_the_mean_alone():
    image, reference = _picture(1).astype(np.float64), _picture(2)
    found = FourierDomainAdaptation(reference, beta=0)._stylize_slice(image)
    difference = (reference.mean(axis=(1, 2)) - image.mean(axis=(1, 2)))[:, None, None]
    np.testing.assert_allclose(found, image + difference, atol=1e-9)


def test_fda_with_the_image_itself_as_reference_is_the_identity():
    image = _picture(1)
    np.testing.assert_allclose(FourierDomainAdaptation(image, beta=0.2).stylize_array(image), image, atol=1e-3)


def test_fda_resizes_a_reference_of_another_size():
    """A smooth picture drawn at two sizes is the same reference."""

    def wave(side: int) -> np.ndarray:
        x = (np.arange(side) / side) * 2 * np.pi
        return (100 + 30 * np.cos(x)[:, None] + 20 * np.sin(2 * x)[None])[None]

    image = _picture(1)[:1].astype(np.float64)
    small, large = (FourierDomainAdaptation(wave(side), beta=0.1, value_range=(0, 255)) for side in (24, 48))
    np.testing.assert_allclose(small.stylize_array(image), large.stylize_array(image), atol=1e-3)
    tiny = FourierDomainAdaptation(wave(4), beta=0.5, value_range=(0, 255))
    assert tiny.window(32, 32) == 1
    assert np.isfinite(tiny.stylize_array(image)).all()


def test_fda_keeps_negative_units_the_right_way_up():
    """CT: a darker reference darkens, although all means are negative."""
    image = np.random.default_rng(0).uniform(-900, 100, (1, 16, 16))
    found = FourierDomainAdaptation(image - 50, beta=0, value_range=(-1024, 3071)).stylize_array(image)
    np.testing.assert_allclose(found.mean(), image.mean() - 50, atol=0.01)


def test_fda_averages_the_slices_of_a_reference_volume():
    volume = np.stack([_picture(1), _picture(1)], axis=1)
    one, two = FourierDomainAdaptation(_picture(1)), FourierDomainAdaptation(volume)
    np.testing.assert_allclose(one.stylize_array(_picture(2)), two.stylize_array(_picture(2)), atol=1e-3)


# --- GIN --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 20, 24), (1, 4, 20, 24)], ids=["image", "volume"])
def test_gin_keeps_the_frobenius_norm(shape: tuple[int, ...]):
    """Of the standardised image, which is the energy about its mean."""
    image = torch.randn(shape, dtype=torch.float64) * 37 + 400
    axes = tuple(range(1, image.ndim))
    mean, deviation = image.mean(axes, keepdim=True), image.std(axes, keepdim=True, correction=0)
    for seed in range(5):
        found = gin(image, draw_gin(np.random.default_rng(seed), shape[0]))
        assert found.shape == image.shape and found.dtype == image.dtype
        before, after = (torch.linalg.vector_norm((x - mean) / deviation) for x in (image, found))
        assert float(after / before) == pytest.approx(1, abs=1e-6)
        assert float((found - image).abs().mean()) > 1


def test_gin_with_alpha_zero_is_the_identity():
    image = _picture(1)
    np.testing.assert_allclose(GIN(3, alpha=(0, 0)).stylize_array(image), image, atol=1e-3)
    assert np.abs(GIN(3, alpha=(1, 1)).stylize_array(image) - image).mean() > 5


def test_gin_does_not_depend_on_units():
    image, parameters = torch.randn(2, 16, 16, dtype=torch.float64), draw_gin(np.random.default_rng(0), 2)
    torch.testing.assert_close(gin(image * 50 - 700, parameters), gin(image, parameters) * 50 - 700)


def test_gin_draws_small_kernels_and_the_authors_widths():
    drawn = [draw_gin(np.random.default_rng(seed), 3) for seed in range(40)]
    assert {kernel.shape[-1] for p in drawn for kernel in p.kernels} == {1, 3}
    assert [kernel.shape[:2] for kernel in drawn[0].kernels] == [(2, 3), (2, 2), (2, 2), (3, 2)]
    assert 0 <= min(p.alpha for p in drawn) < 0.2 and 0.8 < max(p.alpha for p in drawn) <= 1


def test_gin_of_a_constant_image_stays_finite():
    dead = GINParameters((np.zeros((1, 1, 1, 1)),), (np.zeros(1),), 1.0)
    assert torch.isfinite(gin(torch.full((1, 8, 8), 7.0), dead)).all()
    assert np.isfinite(GIN(1).stylize_array(np.full((1, 8, 8), 7.5))).all()


# --- colour jitter and histogram shift --------------------------------------------------------------------------------


def test_colour_jitter_is_torchvisions():
    image = _picture(1)
    control = ColorJitter(3)
    changes = control.draw(np.random.default_rng(3), value_range=(0.0, 255.0))
    expected = torch.from_numpy(image / 255.0)
    for name, value in changes:
        expected = getattr(functional, f"adjust_{name}")(expected, value)
    found = control.apply(image.astype(np.float64), changes, value_range=(0.0, 255.0))
    np.testing.assert_allclose(found, expected.numpy() * 255, atol=0.05)


def test_colour_jitter_of_other_channels_is_brightness_contrast_gamma():
    image = np.random.default_rng(0).uniform(-500, 1500, (2, 8, 8))
    changes = [[("brightness", 0.5)], [("contrast", 0.0), ("gamma", 2.0)]]
    found = ColorJitter(2).apply(image, changes, value_range=(-500.0, 1500.0))
    units = (image + 500) / 2000
    np.testing.assert_allclose(found[0], units[0] * 1000 - 500)
    np.testing.assert_allclose(found[1], units[1].mean() ** 2 * 2000 - 500)


def test_histogram_shift_keeps_order_and_ends():
    image = np.random.default_rng(0).normal(0, 300, (2, 16, 16))
    found = HistogramShift(2).stylize_array(image)
    for before, after in zip(image.reshape(2, -1), found.reshape(2, -1), strict=True):
        assert (np.diff(after[np.argsort(before)]) >= -1e-3).all()
        np.testing.assert_allclose([after.min(), after.max()], [before.min(), before.max()], rtol=1e-5)
    flat = np.full((2, 8, 8), 3.0)
    assert np.array_equal(HistogramShift(2).stylize_array(flat), flat)


# --- random controls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RANDOM)
def test_random_controls_draw_afresh_from_a_generator_and_repeat_for_an_image(kind):
    control, image, other = kind(3), _picture(1), _picture(2)
    rng = np.random.default_rng(0)
    first, second = control.augment(image, rng), control.augment(image, rng)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, control.augment(image, np.random.default_rng(0)))
    assert not np.array_equal(control.stylize_array(image), kind(3, seed=1).stylize_array(image))
    assert not np.array_equal(control.stylize_array(image) - image, control.stylize_array(other) - other)
    assert np.array_equal(control.augment(image, rng, strength=0), image)
    assert np.array_equal(control.stylize_array(image[:, None])[:, 0], control.stylize_array(image))


@pytest.mark.parametrize("kind", RANDOM)
def test_random_controls_keep_a_given_range(kind):
    image = np.random.default_rng(0).uniform(-200, 200, (1, 16, 16))
    found = kind(1, value_range=(-100, 100)).stylize_array(image)
    assert found.min() >= -100 and found.max() <= 100


@pytest.mark.parametrize(
    "make",
    [
        lambda: GIN(0),
        lambda: GIN(3, seed=-1),
        lambda: GIN(3, alpha=(0.5, 0.1)),
        lambda: GIN(3, alpha=(0, 2)),
        lambda: GIN(3, layers=0),
        lambda: ColorJitter(3, brightness=2),
        lambda: ColorJitter(3, hue=0.6),
        lambda: ColorJitter(1, gamma=(0, 1)),
        lambda: HistogramShift(1, control_points=2),
        lambda: FourierDomainAdaptation(_picture(1), beta=0.6),
        lambda: FourierDomainAdaptation(_picture(1)[0]),
        lambda: Reinhard(np.full((1, 4, 4), np.nan)),
    ],
)
def test_parameters_out_of_range_are_refused(make):
    with pytest.raises(OsasisError):
        make()
