"""A frame is a property of a set of images; what is done about it is one function of a pixel's value."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from specimens import unit_images

from nnunet_osasis import OsasisError
from nnunet_osasis.maps.base import PixelMap, blend
from nnunet_osasis.maps.field_of_view import FALL, RISE, Frame, field_of_view, find_frame, own_view
from nnunet_osasis.maps.moments import MomentMap
from nnunet_osasis.maps.parametric import ParametricMap
from nnunet_osasis.synthetic.phantom.scanner import acquire_pair
from nnunet_osasis.synthetic.ultrasound import draw_ultrasound

LEVEL = 2 / 255


def unit(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.astype(np.float32) / 127.5 - 1)


def scenes(count: int, *, channels: int = 3, size: tuple[int, int] = (72, 90)) -> torch.Tensor:
    """Bright pictures without a frame."""
    return torch.nn.functional.interpolate(unit_images(count, channels=channels), size).clamp(min=-0.5)


def outline(kind: str, size: tuple[int, int] = (72, 90)) -> torch.Tensor:
    """True in the frame of a round, octagonal or rectangular view, or of one that is cut off on two sides."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in size), indexing="ij")
    return {
        "round": x**2 + y**2 > 0.9,
        "octagon": x.abs() + y.abs() > 1.4,
        "rectangle": (x.abs() > 0.8) | (y.abs() > 0.7),
        "sides": x.abs() > 0.75,
    }[kind]


def framed(images: torch.Tensor, frame: torch.Tensor, level: float, noise: float = 1.0) -> torch.Tensor:
    """Images with a frame of a gray level, and as many levels of noise."""
    drawn = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    return torch.where(frame, (level + noise * drawn) * LEVEL - 1, images)


def vignette(seed: int, depth: float) -> torch.Tensor:
    y, x = np.mgrid[-1:1:80j, -1:1:100j]
    light = (200 + 20 * np.sin(4 * x + seed)) * np.clip(1 - depth * (x**2 + y**2) / 2, 0, 1)
    return unit(np.clip(light + np.random.default_rng(seed).normal(0, 2, (3, 80, 100)), 0, 255).astype(np.uint8))


def ct(seed: int, low: float, high: float) -> torch.Tensor:
    """A body with lungs in air, seen in a window of HU."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:80j, -1:1:80j]
    (a, b), (p, q) = rng.uniform(0.6, 0.85, 2), rng.uniform(-0.08, 0.08, 2)
    inside = ((x - p) / a) ** 2 + ((y - q) / b) ** 2
    hu = np.where(inside < 1, np.where(inside < 0.8, 50, -90), -1000) + rng.normal(0, 12, x.shape)
    for side in (-1, 1):
        hu = np.where(((x - p - side * 0.3) / 0.2) ** 2 + ((y - q) / 0.3) ** 2 < 1, -850 + rng.normal(0, 30), hu)
    return torch.from_numpy(np.clip((hu - low) / (high - low) * 2 - 1, -1, 1).astype(np.float32))[None]


def mr(count: int) -> torch.Tensor:
    """Slices of MR-like volumes, the noise of their air not filtered."""
    volumes = [acquire_pair(seed, shape=(6, 64, 64))[0] for seed in range(count)]
    return torch.cat([torch.from_numpy(v / np.percentile(v, 99.5) * 2 - 1).movedim(1, 0).clamp(-1, 1) for v in volumes])


# --- what is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["round", "octagon", "rectangle", "sides"])
@pytest.mark.parametrize("level", [0, 11, 21, 35])
def test_a_frame_is_found_in_a_set_and_in_one_image(kind: str, level: int) -> None:
    images = framed(scenes(6), outline(kind), level, noise=4)
    for some in (images, images[:1]):
        frame = find_frame(some)
        assert frame is not None and frame.share == 1
        assert level <= (frame.limit + 1) / LEVEL <= level + 6
        assert frame.area == pytest.approx(float(outline(kind).float().mean()), abs=0.02)
        assert torch.equal(field_of_view(some, frame), ~outline(kind).expand(len(some), 1, -1, -1))


def test_nine_of_ten_images_tell_and_one_of_ten_does_not() -> None:
    images = scenes(10)
    images[1:] = framed(images[1:], outline("round"), 8)
    frame = find_frame(images)
    assert frame is not None and frame.share == pytest.approx(0.9)
    images[2:] = scenes(10)[2:]
    assert find_frame(images) is None


def test_levels_of_two_devices_in_one_set_are_both_frame() -> None:
    images = framed(scenes(12), outline("octagon"), 11)
    images[6:] = framed(scenes(6), outline("octagon"), 21)
    frame = find_frame(images)
    assert frame is not None
    changed = blend(images, images + 0.4, torch.ones(12), frame)
    kept = outline("octagon").expand_as(images)
    assert torch.equal(changed[kept], images[kept])


def test_padding_may_lie_anywhere_if_it_is_constant() -> None:
    images = scenes(8)
    images[::4, :, :20] = images[1::4, ..., -24:] = images[2::4, :, -20:] = images[3::4, ..., :24] = -1
    frame = find_frame(images)
    assert frame is not None and frame.limit < -0.99
    darkness = torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) * 6 * LEVEL
    assert find_frame(torch.where(images == -1, images + darkness, images)) is None  # uneven, here and there


@pytest.mark.parametrize("size", [64, 150])
def test_ultrasound_has_none(size: int) -> None:
    images = [unit(draw_ultrasound(seed, size)[0]) for seed in range(12)]
    assert find_frame(images) is None
    assert [find_frame([image]) for image in images] == [None] * 12


@pytest.mark.parametrize("depth", [0.8, 1.6, 2.0, 3.0])
def test_vignettes_have_none(depth: float) -> None:
    images = [vignette(seed, depth) for seed in range(6)]
    assert find_frame(images) is None
    assert [find_frame([image]) for image in images] == [None] * 6


def test_dark_images_and_images_dark_throughout_have_none() -> None:
    assert find_frame(torch.full((4, 1, 16, 16), -1.0)) is None
    assert find_frame(0.05 * scenes(4) - 0.9) is None
    assert find_frame([]) is None


@pytest.mark.parametrize("window", [(-1000, 1000), (-1024, 1500), (-160, 240)])
def test_the_air_of_ct_is_a_frame(window: tuple[int, int]) -> None:
    frame = find_frame([ct(seed, *window) for seed in range(6)])
    assert frame is not None and 0.4 < frame.area < 0.8


def test_the_air_of_mr_is_a_frame_noise_and_all() -> None:
    images = mr(4)
    frame = find_frame(images)
    assert frame is not None and 0.4 < frame.area < 0.8
    assert (images[:, 0, 0] <= frame.limit).float().mean() > 0.95


# --- what is kept -----------------------------------------------------------------------------------------------------

DARKER, BRIGHTER = MomentMap([-10], [20], [-40], [8]), MomentMap([-20], [10], [5], [25])
MAPS = [DARKER, BRIGHTER, ParametricMap.affine([[0.4]], [-0.8]), ParametricMap.affine([[0.5]], [0.45])]


@pytest.mark.parametrize("change", MAPS, ids=["darker", "brighter", "much darker", "much brighter"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
@pytest.mark.parametrize("level", [None, 0, 12, 40])
def test_values_keep_their_order_without_a_step(change: PixelMap, strength: float, level: int | None) -> None:
    frame = None if level is None else Frame(level * LEVEL - 1, 1.0, 0.3)
    values = torch.linspace(-1, 1, 256 * 16).view(1, 1, 64, 64)
    found = blend(values, change(values), torch.tensor([strength]), frame).flatten()
    steps = found.diff()
    assert steps.min() >= -1e-6
    slope = max(1 + RISE, float(change(values).flatten().diff().max() / values.flatten().diff().max()))
    assert steps.max() <= slope * values.flatten().diff().max() + 1e-5
    if frame is not None:
        inside = values.flatten() <= frame.limit
        assert torch.equal(found[inside], values.flatten()[inside])
        above = values.flatten() - frame.limit
        assert (found >= frame.limit + (1 - FALL) * above - 1e-6)[~inside].all()  # nothing sinks into the frame


AIR_AND_SHADOW: list[Callable[[], torch.Tensor]] = [
    lambda: torch.stack([unit(draw_ultrasound(seed)[0]) for seed in range(12)]),
    lambda: torch.stack([ct(seed, -1000, 1000) for seed in range(6)]),
    lambda: mr(3),
    lambda: framed(scenes(6, channels=1), outline("round"), 11, noise=4),
]


@pytest.mark.parametrize("draw", AIR_AND_SHADOW, ids=["ultrasound", "ct", "mr", "framed"])
def test_one_value_becomes_one_value_at_every_place(draw: Callable[[], torch.Tensor]) -> None:
    images = (draw() / LEVEL).round() * LEVEL
    for change in MAPS:
        found = blend(images, change(images), torch.ones(len(images)), find_frame(images)).flatten()
        values, place = images.flatten().unique(return_inverse=True)
        least = torch.full_like(values, 9.0).scatter_reduce(0, place, found, "amin")
        most = torch.full_like(values, -9.0).scatter_reduce(0, place, found, "amax")
        assert (most - least).max() <= 1e-5
        assert least.diff().min() >= -1e-5


def test_tissue_as_dark_as_shadow_is_restyled_where_there_is_no_frame() -> None:
    images = torch.stack([unit(draw_ultrasound(seed)[0]) for seed in range(6)])
    dark = images < -0.8
    found = blend(images, DARKER(images), torch.ones(6), find_frame(images))
    assert torch.equal(found[dark], DARKER(images).clamp(-1, 1)[dark])


def test_the_brightest_channel_says_what_is_frame() -> None:
    frame = Frame(-0.9, 1.0, 0.3)
    red = torch.tensor([0.5, -1.0, -1.0]).view(1, 3, 1, 1)
    assert torch.equal(frame.hold(red, red + 0.3), red + 0.3)


# --- what statistics leave out ----------------------------------------------------------------------------------------


def test_a_dark_lumen_is_image_and_a_dark_image_is_all_image() -> None:
    images = scenes(3)
    images[0, :, 30:40, 30:40] = -1
    images[1] = -1
    images[2, ..., :5] = -1
    view = field_of_view(images, Frame(-0.99, 1.0, 0.1))
    assert view[:2].all()
    assert torch.equal(view[2, 0, 0], torch.arange(90) >= 5)
    assert field_of_view(images, None).all()


def test_a_dark_scene_that_runs_into_the_frame_stays_image() -> None:
    """A dim lamp: the corner lies below any fixed threshold, but is neither as dark nor as even as the frame."""
    image = scenes(1, size=(48, 48))
    image[..., :24, :24] = (10 + 10 * torch.rand(24, 24, generator=torch.Generator().manual_seed(0))) * LEVEL - 1
    frame = torch.ones(48, 48, dtype=torch.bool)
    frame[4:-4, 4:-4] = False
    assert torch.equal(own_view(framed(image, frame, 0))[0, 0], ~frame)


def test_images_of_a_batch_have_views_of_their_own() -> None:
    images = scenes(4)
    images[1] = framed(images[1], outline("round"), 0)
    images[2] = framed(images[2], outline("sides"), 20)
    assert own_view(images)[[0, 3]].all()
    assert torch.equal(own_view(images)[1, 0], ~outline("round"))
    assert torch.equal(own_view(images)[2, 0], ~outline("sides"))


def test_slices_of_a_volume_share_their_air() -> None:
    volume = torch.zeros(3, 1, 20, 20)
    volume[..., :3] = -0.99
    volume[1] = -0.99  # dark throughout
    frame = Frame(-0.98, 1.0, 0.2)
    assert not field_of_view(volume, frame, joint=True)[1].any()
    assert field_of_view(volume, frame)[1].all()


@pytest.mark.parametrize(
    "values",
    [(-1.1, 1, 0.5), (0.0, 1, 0.5), (float("nan"), 1, 0.5), (-1, 0, 0.5), (-1, 2, 0.5), (-1, 1, 1.0), (-1, 1, True)],
)
def test_numbers_that_no_frame_has_are_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(OsasisError, match="A frame needs a limit"):
        Frame(*values)
