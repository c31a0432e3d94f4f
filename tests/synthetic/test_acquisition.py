"""Random acquisitions: what every family promises, and how a user adds one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from specimens import tiny_calibration, unit_images

from nnunet_osasis import OsasisError
from nnunet_osasis.maps.detail import sharpen
from nnunet_osasis.maps.parametric import TERMS, ParametricMap, places
from nnunet_osasis.synthetic.acquisition import (
    FAMILIES,
    CameraFamily,
    Parameters,
    ScannerFamily,
    family_for,
    register,
    tone_curve,
    uniform,
)
from nnunet_osasis.training.calibrate import train_calibrator

CHANNELS = {"camera": (3,), "scanner": (1, 2)}
EVERY = [(name, channels) for name in FAMILIES for channels in CHANNELS.get(name, (3,))]
COUNT, SIDE = 6, 16
WHERE = places(SIDE, SIDE).flatten(1)[None]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scenes(channels: int) -> torch.Tensor:
    """``(COUNT, C, SIDE, SIDE)``, every value from -1 to 1."""
    return torch.rand(COUNT, channels, SIDE, SIDE, generator=generator(9)) * 2 - 1


@pytest.mark.parametrize(("name", "channels"), EVERY)
class TestEveryFamily:
    """The contract the calibrator's training relies on."""

    @pytest.mark.parametrize("strength", [0.3, 1.0, 3.0])
    def test_it_shows_images_of_the_same_shape_in_range(self, name: str, channels: int, strength: float) -> None:
        family, images = family_for(name, channels), scenes(channels)
        parameters = family.sample(COUNT, channels, generator(), strength)
        assert {len(value) for value in parameters.values()} == {COUNT}
        shown = family.show(images.flatten(2), WHERE, parameters)
        degraded = family.degrade(shown.view_as(images), parameters, generator(1))
        assert shown.shape == images.flatten(2).shape
        assert degraded.shape == images.shape
        for found in (shown, degraded):
            assert torch.isfinite(found).all()
            assert found.abs().max() <= 1
        assert (shown - images.flatten(2)).abs().mean() > 0.01 * strength

    def test_one_seed_gives_one_acquisition(self, name: str, channels: int) -> None:
        family, images = family_for(name, channels), scenes(channels)

        def run(seed: int) -> list[torch.Tensor]:
            drawn = generator(seed)
            parameters = family.sample(COUNT, channels, drawn)
            shown = family.show(images.flatten(2), WHERE, parameters).view_as(images)
            return [*parameters.values(), shown, family.degrade(shown, parameters, drawn)]

        torch.manual_seed(1)
        first = run(0)
        torch.manual_seed(2)  # the global generator has no say
        assert all(torch.equal(a, b) for a, b in zip(first, run(0), strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(first, run(1), strict=True))

    def test_without_strength_it_is_the_identity(self, name: str, channels: int) -> None:
        family, images = family_for(name, channels), 0.95 * scenes(channels)
        parameters = family.sample(COUNT, channels, generator(), 1e-4)
        shown = family.show(images.flatten(2), WHERE, parameters).view_as(images)
        torch.testing.assert_close(shown, images, atol=2e-3, rtol=0)
        degraded = family.degrade(images, parameters, generator(1))
        torch.testing.assert_close(degraded, images, atol=2e-3, rtol=0)

    def test_more_strength_is_a_larger_change(self, name: str, channels: int) -> None:
        family, images = family_for(name, channels), scenes(channels).flatten(2)
        changes = [
            (family.show(images, WHERE, family.sample(COUNT, channels, generator(), s)) - images).abs().mean()
            for s in (0.1, 0.3, 1.0)
        ]
        assert changes[0] < changes[1] < changes[2]

    def test_pixels_are_shown_one_by_one(self, name: str, channels: int) -> None:
        family, images = family_for(name, channels), scenes(channels).flatten(2)
        parameters = family.sample(COUNT, channels, generator())
        shown = family.show(images, WHERE, parameters)
        order = torch.randperm(SIDE * SIDE, generator=generator(3))
        permuted = family.show(images[..., order], WHERE[..., order], parameters)
        torch.testing.assert_close(permuted, shown[..., order], atol=1e-6, rtol=0)
        some = family.show(images[..., :7], WHERE[..., :7], parameters)
        torch.testing.assert_close(some, shown[..., :7], atol=1e-6, rtol=0)

    def test_every_acquisition_of_a_batch_stands_alone(self, name: str, channels: int) -> None:
        family, images = family_for(name, channels), scenes(channels).flatten(2)
        parameters = family.sample(COUNT, channels, generator())
        shown = family.show(images, WHERE, parameters)
        each = WHERE.expand(COUNT, -1, -1)
        torch.testing.assert_close(family.show(images, each, parameters), shown, atol=1e-6, rtol=0)
        for i in range(COUNT):
            own = {key: value[i : i + 1] for key, value in parameters.items()}
            torch.testing.assert_close(family.show(images[i : i + 1], WHERE, own)[0], shown[i], atol=1e-6, rtol=0)

    def test_its_terms_describe_it_better_than_an_affine_map(self, name: str, channels: int) -> None:
        family, images = family_for(name, channels), 0.8 * scenes(channels).flatten(2)
        assert set(family.terms) <= set(TERMS)
        shown = family.show(images, WHERE, family.sample(COUNT, channels, generator(), 0.5))
        errors: dict[tuple[str, ...], float] = {}
        for terms in ((), family.terms):
            fitted = [
                ParametricMap.fit(a, b, WHERE[0], terms=terms, ridge=1e-6, bend_ridge=1e-5).at(a[None], WHERE)[0]
                for a, b in zip(images, shown, strict=True)
            ]
            errors[terms] = float((torch.stack(fitted) - shown).abs().mean())
        assert errors[family.terms] < 0.6 * errors[()]


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_scanner_shows_more_signal_as_no_darker_and_mixes_no_channels(channels: int) -> None:
    family = ScannerFamily()
    parameters = family.sample(COUNT, channels, generator())
    ramp = torch.linspace(-1, 1, 100).expand(COUNT, channels, 100).clone()
    place = torch.tensor([0.3, 0.5, -0.5])[None, :, None]
    shown = family.show(ramp, place, parameters)
    assert (shown.diff(dim=-1) >= 0).all()
    assert (shown[..., -1] > shown[..., 0]).all()
    ramp[:, 1:] = 0.2
    torch.testing.assert_close(family.show(ramp, place, parameters)[:, 0], shown[:, 0])


def test_a_camera_darkens_corners_and_never_reverses_its_curve() -> None:
    family = CameraFamily()
    plain = family.sample(COUNT, 3, generator(), 1e-6)
    grey, edge = torch.zeros(COUNT, 3, 1), torch.tensor([1.0, 1.0, 1.0])[None, :, None]
    dark = family.show(grey, edge, plain | {"vignette": torch.full((COUNT, 1, 1), 0.4)})
    torch.testing.assert_close((dark + 1) / 2, torch.full_like(dark, 0.3), atol=1e-3, rtol=0)
    parameters = family.sample(COUNT, 3, generator())
    ramp = torch.linspace(0, 1, 200).expand(COUNT, 3, 200)
    assert (tone_curve(ramp, parameters["slopes"]).diff(dim=-1) > 0).all()


@pytest.mark.parametrize("pieces", [1, 2, 5, 6])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 50.0])
def test_a_tone_curve_rises_from_black_to_white(pieces: int, scale: float) -> None:
    slopes = scale * torch.exp(torch.randn(4, 2, pieces, generator=generator()))
    light = torch.linspace(0, 1, 101).expand(4, 2, 101)
    curve = tone_curve(light, slopes)
    torch.testing.assert_close(curve[..., 0], torch.zeros(4, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(curve[..., -1], torch.ones(4, 2), atol=1e-6, rtol=0)
    assert (curve.diff(dim=-1) > 0).all()
    beyond = tone_curve(torch.tensor([-1.0, 2.0]).expand(4, 2, 2), slopes)
    torch.testing.assert_close(beyond, torch.tensor([0.0, 1.0]).expand(4, 2, 2), atol=1e-6, rtol=0)


def test_a_tone_curve_of_equal_slopes_is_the_identity_and_of_two_has_one_kink() -> None:
    light = torch.linspace(0, 1, 11).view(1, 1, -1)
    torch.testing.assert_close(tone_curve(light, torch.full((1, 1, 5), 3.0)), light, atol=1e-6, rtol=0)
    found = tone_curve(torch.tensor([[[0.25, 0.5, 0.75]]]), torch.tensor([[[3.0, 1.0]]]))
    torch.testing.assert_close(found, torch.tensor([[[0.375, 0.75, 0.875]]]))


def test_sharpening_leaves_flat_pictures_and_blurs_when_negative() -> None:
    flat = torch.full((2, 3, 8, 8), 0.3)
    torch.testing.assert_close(sharpen(flat, torch.tensor([1.0, -1.0])), flat)
    spot = torch.zeros(3, 1, 5, 5)
    spot[..., 2, 2] = 1
    plain, blurred, sharp = sharpen(spot, torch.tensor([0.0, -1.0, 1.0]))
    assert torch.equal(plain, spot[0])
    assert blurred[0, 2, 2].item() == pytest.approx(0.25)
    assert blurred.sum().item() == pytest.approx(1)  # and it stays in its place
    assert sharp[0, 2, 2].item() == pytest.approx(1.75)


def test_uniform_numbers_lie_between_their_bounds() -> None:
    found = uniform(1000, -0.1, 0.4, generator(), 2)
    assert found.shape == (1000, 2)
    assert -0.1 <= found.min() < -0.09
    assert 0.39 < found.max() <= 0.4


def test_auto_takes_cameras_for_colour_and_scanners_for_the_rest() -> None:
    assert isinstance(family_for("auto", 3), CameraFamily)
    assert isinstance(family_for("auto", 1), ScannerFamily)
    assert isinstance(family_for("auto", 4), ScannerFamily)
    assert isinstance(family_for("scanner", 3), ScannerFamily)


def test_an_unknown_family_is_refused_naming_the_known() -> None:
    with pytest.raises(OsasisError, match=r"telescope.*auto.*camera.*scanner"):
        family_for("telescope", 3)


def test_a_taken_name_is_refused_and_keeps_its_family() -> None:
    with pytest.raises(OsasisError, match=r"name of its own.*camera"):
        register("camera")(ScannerFamily)
    assert FAMILIES["camera"] is CameraFamily


class Lamp:
    """A user's own family: one gain for every channel."""

    terms = ("radial",)
    asked: tuple[int, int, float] | None = None

    def sample(self, count: int, channels: int, generator: torch.Generator, strength: float = 1.0) -> Parameters:
        type(self).asked = (count, channels, strength)
        return {"gain": uniform(count, 1 - 0.5 * strength, 1.0, generator, channels, 1)}

    def show(self, values: torch.Tensor, where: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        return (values + 1) * parameters["gain"] - 1

    def degrade(self, images: torch.Tensor, parameters: Parameters, generator: torch.Generator) -> torch.Tensor:
        return images


@pytest.fixture
def lamp() -> Iterator[str]:
    """The name ``Lamp`` is registered under, as long as the test runs."""
    name = "test_acquisition.lamp"
    assert register(name)(Lamp) is Lamp
    Lamp.asked = None
    yield name
    del FAMILIES[name]


def test_a_users_own_family_is_found_and_trained_on(lamp: str, tmp_path: Path) -> None:
    assert isinstance(family_for(lamp, 3), Lamp)
    config = tiny_calibration(family=lamp, strength=0.7)
    own = train_calibrator(unit_images(6), config, work=tmp_path / "own")
    assert Lamp.asked == (config.batch_size, 3, 0.7)
    assert tuple(own.config.terms) == ("radial",)
    camera = train_calibrator(unit_images(6), tiny_calibration(strength=0.7), work=tmp_path / "camera")
    assert tuple(camera.config.terms) == CameraFamily.terms


def test_a_calibrator_of_an_unknown_family_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    with pytest.raises(OsasisError, match="telescope"):
        train_calibrator(unit_images(6), tiny_calibration(family="telescope"), work=tmp_path)
    assert not list(tmp_path.iterdir())
