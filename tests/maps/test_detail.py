"""Sharpness and noise: what is measured, what is changed, and what is left alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from specimens import unit_images

from nnunet_osasis import OsasisError
from nnunet_osasis.maps.detail import SHARPEST, SOFTEST, DetailChange, DetailStatistics, sharpen
from nnunet_osasis.maps.field_of_view import find_frame, own_view
from nnunet_osasis.scripts import stylize
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

SIDE = 96
SHARPER = DetailChange(0.8, 0.0)
NOISIER = DetailChange(0.0, 0.1)
BOTH = DetailChange(0.8, 0.1)


def picture(seed: int, *, channels: int = 3, side: int = SIDE) -> torch.Tensor:
    """A scene with a natural picture's spectrum (amplitudes fall with frequency), ``(1, C, side, side)``."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.fft.rfft2(torch.randn(1, channels, side, side, generator=generator))
    rows, columns = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]
    shaped = torch.fft.irfft2(white / (rows.square() + columns.square()).sqrt().clamp(min=1 / side), s=(side, side))
    return 0.5 * shaped / shaped.abs().max()


def smooth(side: int = 128, *, channels: int = 1) -> torch.Tensor:
    """Long waves, ``(1, C, side, side)``: nothing that a noise estimate could mistake for noise."""
    rows, columns = torch.linspace(0, 5, side)[:, None], torch.linspace(0, 4, side)[None]
    return (0.3 * rows.sin() * columns.cos())[None, None].expand(1, channels, -1, -1)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by(images: torch.Tensor, amount: float) -> torch.Tensor:
    """Unsharp masking, not clipped."""
    return sharpen(images, torch.full((len(images),), amount))


def measured(image: torch.Tensor) -> DetailStatistics:
    found = DetailStatistics.of(image)
    assert found is not None
    return found


def known(*sharpness: float, noise: float = 0.02) -> list[DetailStatistics]:
    return [DetailStatistics(value, noise) for value in sharpness]


# --- DetailStatistics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_contrast_and_offset_do_not_change_sharpness(channels: int) -> None:
    image = picture(0, channels=channels)
    before = measured(image)
    for gain, offset in ((0.5, 0.0), (1.3, 0.0), (1.0, 0.2), (0.7, -0.2), (-1.0, 0.0)):
        after = measured(gain * image + offset)
        assert after.sharpness == pytest.approx(before.sharpness, abs=1e-3)
        assert after.noise == pytest.approx(abs(gain) * before.noise, rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_blurring_lowers_sharpness_and_sharpening_raises_it(seed: int) -> None:
    found = [measured(by(picture(seed), amount)).sharpness for amount in (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5)]
    assert found == sorted(found)
    assert found[2] - found[0] > 0.2
    assert found[5] - found[2] > 0.1


@pytest.mark.parametrize("sigma", [0.01, 0.03, 0.06])
@pytest.mark.parametrize("seed", range(2))
def test_noise_is_found_on_a_smooth_image(sigma: float, seed: int) -> None:
    image = smooth()
    assert measured(image).noise < 0.002
    assert measured(image + sigma * noise(*image.shape, seed=seed)).noise == pytest.approx(sigma, rel=0.2)


def test_noise_is_that_of_the_mean_over_channels() -> None:
    image = smooth(channels=4)
    assert measured(image + 0.04 * noise(*image.shape)).noise == pytest.approx(0.02, rel=0.2)


def test_noise_is_not_taken_for_sharpness() -> None:
    """Noise in an amount that alone would look like a much sharper camera moves the estimate little."""
    image = picture(1)
    noisy = measured(image + 0.01 * noise(*image.shape))
    assert noisy.sharpness - measured(image).sharpness < measured(by(image, 0.5)).sharpness - measured(image).sharpness


def test_only_what_is_in_view_is_measured() -> None:
    image = picture(2)
    framed = torch.full_like(image, -1.0)
    framed[..., 20:-20, 20:-20] = image[..., 20:-20, 20:-20]
    inside = measured(image[..., 20:-20, 20:-20])
    assert measured(framed).sharpness == pytest.approx(inside.sharpness, abs=0.15)
    assert measured(framed).noise == pytest.approx(inside.noise, rel=0.2)


def test_almost_nothing_in_view_gives_none() -> None:
    framed = torch.full((1, 3, SIDE, SIDE), -1.0)
    framed[..., 40:55, 40:55] = picture(0)[..., 40:55, 40:55].clamp(min=-0.5)
    assert own_view(framed).sum() == 15 * 15
    assert DetailStatistics.of(framed) is None  # 7 x 7 pixels are away from the frame's edge
    framed[..., 40:65, 40:65] = picture(0)[..., 40:65, 40:65].clamp(min=-0.5)
    assert DetailStatistics.of(framed) is not None


@pytest.mark.parametrize("value", [-1.0, 0.0, 1.0])
def test_flat_images_say_nothing_about_detail(value: float) -> None:
    assert DetailStatistics.of(torch.full((1, 1, 32, 32), value)) is None


def test_images_too_thin_to_filter_say_nothing() -> None:
    assert DetailStatistics.of(picture(0)[..., :1, :]) is None


@pytest.mark.parametrize("sharpness", [-1.0, 1.5])
def test_no_fringe_along_the_frame(sharpness: float) -> None:
    """A flat scene behind a round frame stays flat up to the frame's edge."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    inside = ((rows - SIDE / 2) ** 2 + (columns - SIDE / 2) ** 2 < (SIDE / 3) ** 2)[None, None]
    image = torch.where(inside, 0.2, -1.0).expand(1, 3, SIDE, SIDE)
    found = DetailChange(sharpness, 0.0)(image, view=inside)
    torch.testing.assert_close(found, image, atol=1e-5, rtol=0)


def test_noise_comes_from_the_image_before_restyling() -> None:
    image, change = picture(0), DetailChange(0.0, 0.1)
    first, again = (change(0.5 * image + shift, drawn_from=image) - 0.5 * image - shift for shift in (0.0, 1e-6))
    torch.testing.assert_close(first, again, atol=1e-5, rtol=0)


# --- DetailChange.between ---------------------------------------------------------------------------------------------


def test_equal_statistics_ask_for_no_change() -> None:
    own = known(-1.2, -1.0, -0.9)
    for some in (own, own[:1]):
        found = DetailChange.between(some, some)
        assert found.sharpness == 0
        assert found.noise == pytest.approx(0, abs=1e-5)


def test_without_statistics_nothing_changes() -> None:
    own = known(-1.0, 0.5)
    assert DetailChange.between([], own) == DetailChange.between(own, []) == DetailChange.between([], [])
    assert DetailChange.between([], own) == DetailChange()


def test_within_the_sources_own_spread_nothing_changes() -> None:
    own = known(-1.2, -1.0, -0.8)  # one standard deviation is 0.2
    for apart in (-0.19, -0.1, 0.1, 0.19):
        assert DetailChange.between(own, known(-1.0 + apart)).sharpness == 0
    assert DetailChange.between(own, known(-0.75)).sharpness > 0
    assert DetailChange.between(own, known(-1.25)).sharpness < 0


def test_a_sharper_reference_sharpens_and_a_softer_one_blurs() -> None:
    own = known(-1.0, -1.0)
    found = [DetailChange.between(own, known(-1.0 + apart)).sharpness for apart in (-0.6, -0.3, 0.0, 0.3, 0.6)]
    assert found == sorted(found)
    assert found[1] < found[2] == 0 < found[3]


def test_the_change_is_limited() -> None:
    own = known(-1.0, -1.0)
    assert DetailChange.between(own, known(9.0)).sharpness == SHARPEST
    assert DetailChange.between(own, known(-9.0)).sharpness == SOFTEST


def test_only_noise_beyond_the_sources_own_is_added() -> None:
    own = known(0.0, 0.0, noise=0.03)
    assert DetailChange.between(own, known(0.0, noise=0.05)).noise == pytest.approx(0.04, abs=1e-5)
    for less in (0.0, 0.02, 0.03):
        assert DetailChange.between(own, known(0.0, noise=less)).noise == pytest.approx(0, abs=1e-5)
    spread = [*known(0.0, noise=0.01), *known(0.0, noise=0.06)]  # some source images have as much
    assert DetailChange.between(spread, known(0.0, noise=0.05)).noise == 0


def test_several_references_count_by_their_mean() -> None:
    own = known(-1.0, -1.0)
    assert DetailChange.between(own, known(-0.8, -0.6)) == DetailChange.between(own, known(-0.7))


@pytest.mark.parametrize("forwards", [True, False])
def test_the_change_brings_blurred_and_sharp_images_nearer_to_each_other(forwards: bool) -> None:
    sharp = [picture(seed) for seed in range(6)]
    blurred = [by(image, -1.0) for image in sharp]
    have, want = (blurred, sharp) if forwards else (sharp, blurred)
    change = DetailChange.between([measured(one) for one in have], [measured(one) for one in want[:2]])
    assert (change.sharpness > 0) == forwards
    assert change.sharpness != 0
    changed = DetailChange(change.sharpness)
    for before, after in zip(have, want, strict=True):
        assert (changed(before) - after).square().mean() < 0.8 * (before - after).square().mean()
        left = abs(measured(changed(before)).sharpness - measured(after).sharpness)
        assert left < abs(measured(before).sharpness - measured(after).sharpness)


# --- DetailChange -----------------------------------------------------------------------------------------------------


def test_no_change_is_the_identity() -> None:
    images = unit_images(2)
    assert torch.equal(DetailChange()(images), images)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_result_keeps_shape_and_range(channels: int) -> None:
    images = unit_images(2, channels=channels)
    found = DetailChange(SHARPEST, 0.3)(images)
    assert found.shape == images.shape
    assert found.dtype == images.dtype
    assert -1 <= found.min() < found.max() <= 1


def test_noise_of_the_wanted_size_is_added() -> None:
    image = smooth(channels=3)
    added = DetailChange(0.0, 0.05)(image) - image
    assert float(added.std()) == pytest.approx(0.05, rel=0.05)
    assert abs(float(added.mean())) < 0.002
    assert abs(float(np.corrcoef(added[0].flatten(1).numpy())[0, 1])) < 0.05


@pytest.mark.parametrize("change", [NOISIER, BOTH])
def test_equal_images_get_equal_noise_alone_and_in_a_batch(change: DetailChange) -> None:
    images = 0.5 * unit_images(3)
    together = change(images)
    assert torch.equal(together, torch.cat([change(one) for one in images.split(1)]))
    assert torch.equal(together, change(images))
    twice = change(images[[0, 1, 0]])
    assert torch.equal(twice[0], twice[2])


def test_different_images_get_different_noise() -> None:
    images = 0.5 * unit_images(2)
    first, second = (NOISIER(images) - images).flatten(1)
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.1


@pytest.mark.parametrize(
    ("sharpness", "noise"),
    [(1.51, 0.0), (-1.01, 0.0), (0.0, -0.01), (0.0, 1.01), (math.nan, 0.0), (0.0, math.nan), (math.inf, 0.0)],
)
def test_values_beyond_the_limits_are_refused(sharpness: float, noise: float) -> None:
    with pytest.raises(OsasisError, match="limits"):
        DetailChange(sharpness, noise)
    DetailChange(SHARPEST, 1.0)
    DetailChange(SOFTEST, 0.0)


def test_a_change_comes_back_from_its_json() -> None:
    one = DetailChange.between(known(-1.0, -1.1), known(-0.4, noise=0.051))
    assert one.sharpness > 0 < one.noise
    again = DetailChange(**json.loads(json.dumps(one.to_json())))
    assert again == one
    assert torch.equal(again(unit_images(2)), one(unit_images(2)))


# --- in a stylizer ----------------------------------------------------------------------------------------------------


def framed(count: int) -> torch.Tensor:
    images = unit_images(count)
    images[..., :6] = -0.98
    return images


def test_a_stylizer_adds_detail_only_when_asked_to(stylizer: OSASISStylizer) -> None:
    images = 0.4 * unit_images(2) + 0.2
    plain = stylizer.stylize(images)
    for change in (SHARPER, NOISIER):
        stylizer.detail = change
        asked = stylizer.configured(detail=True)
        assert not stylizer.config.detail
        assert torch.equal(stylizer.stylize(images), plain)
        found = asked.stylize(images)
        if change.noise:
            assert float((found - plain).std()) == pytest.approx(change.noise, rel=0.1)
        else:
            torch.testing.assert_close(found, change(plain), atol=1e-5, rtol=0)
            assert (found - plain).abs().mean() > 1e-3
        assert asked.fingerprint != stylizer.fingerprint


def test_a_stylizer_without_a_change_of_detail_adds_none(stylizer: OSASISStylizer) -> None:
    images = framed(2)
    stylizer.detail = DetailChange()
    assert torch.equal(stylizer.configured(detail=True).stylize(images), stylizer.stylize(images))


@pytest.mark.parametrize("change", [SHARPER, NOISIER, BOTH])
def test_frames_stay_and_strength_0_is_the_identity(stylizer: OSASISStylizer, change: DetailChange) -> None:
    images = framed(2)
    stylizer.detail, stylizer.frame = change, find_frame(images)
    asked = stylizer.configured(detail=True)
    found = asked.stylize(images)
    assert torch.equal(found[..., :6], images[..., :6])
    assert not torch.equal(found[..., 6:], stylizer.stylize(images)[..., 6:])
    assert torch.equal(asked.stylize(images, strength=0), images)
    mixed = asked.stylize(images, strength=[0, 1])
    assert torch.equal(mixed[0], images[0])
    torch.testing.assert_close(mixed[1], found[1], atol=1e-6, rtol=0)


def test_the_way_back_ignores_detail(stylizer: OSASISStylizer) -> None:
    images = unit_images(2)
    stylizer.detail = BOTH
    back = stylizer.stylize(images, direction="target_to_source")
    assert torch.equal(stylizer.configured(detail=True).stylize(images, direction="target_to_source"), back)


def test_detail_is_saved_with_the_stylizer(stylizer: OSASISStylizer, tmp_path: Path) -> None:
    stylizer.detail = BOTH
    stylizer.save_pretrained(tmp_path / "s")
    again = OSASISStylizer.from_pretrained(tmp_path / "s")
    assert again.detail == BOTH
    assert not again.config.detail


@pytest.mark.parametrize("change", [DetailChange(), BOTH])
def test_the_command_adds_detail_when_asked_to(
    stylizer: OSASISStylizer, image_folder: Path, tmp_path: Path, change: DetailChange
) -> None:
    stylizer.detail = change
    stylizer.save_pretrained(tmp_path / "s")
    (tmp_path / "in").mkdir()
    Image.open(image_folder / "images/case 0.png").save(tmp_path / "in/a.png")
    common = ["-i", str(tmp_path / "in"), "--stylizer", str(tmp_path / "s"), "-device", "cpu"]
    stylize.main([*common, "-o", str(tmp_path / "plain")])
    stylize.main([*common, "-o", str(tmp_path / "detailed"), "--detail"])
    plain, detailed = (np.asarray(Image.open(tmp_path / name / "a.png")) for name in ("plain", "detailed"))
    assert plain.shape == detailed.shape
    assert np.array_equal(plain, detailed) == (change == DetailChange())
