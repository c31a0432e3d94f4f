"""One pass: a module in pure torch that restyles as ``stylize`` does, for training steps and exported files."""

from __future__ import annotations

import pytest
import torch
from specimens import unit_images

from nnunet_osasis import OsasisError
from nnunet_osasis.maps.base import ColorMap, MeanMap, PixelMap
from nnunet_osasis.maps.detail import DetailChange
from nnunet_osasis.maps.field_of_view import field_of_view, view_along_lines
from nnunet_osasis.maps.modules import map_module
from nnunet_osasis.maps.moments import MomentMap
from nnunet_osasis.maps.parametric import TERMS, ParametricMap, feature_count
from nnunet_osasis.stylizer.config import DIRECTIONS
from nnunet_osasis.stylizer.names import STUDENT
from nnunet_osasis.stylizer.one_pass import OnePass
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

ONE_PASS = ("decoder", "decoder_bent", "moments", "pair", "calibrator", "combined", STUDENT)


def pictures(count: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    """Smooth pictures in [-1, 1], all in view."""
    images = torch.nn.functional.interpolate(unit_images(count, channels=channels), (height, width), mode="bilinear")
    return images.clamp(-0.7, 1)


def parametric(channels: int, terms: tuple[str, ...]) -> ParametricMap:
    generator = torch.Generator().manual_seed(channels)
    rows = 0.1 * torch.randn(channels, feature_count(channels, terms), generator=generator, dtype=torch.float64)
    return ParametricMap(tuple(map(tuple, rows.tolist())), terms, (-0.8,) * channels, (0.7,) * channels)


@pytest.mark.parametrize("readout", ONE_PASS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_pass_is_what_stylize_gives(stylizer: OSASISStylizer, readout: str, direction: str) -> None:
    images, strength = pictures(3, 40, 57), torch.tensor([1.0, 0.4, 0.75])
    images[..., :4] = -1
    found = stylizer.one_pass(direction, readout)(images, strength)
    wanted = stylizer.stylize(images, strength=strength.tolist(), direction=direction, readout=readout)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert not torch.equal(found, images)


@pytest.mark.parametrize("readout", ["combined", STUDENT])
def test_strength_zero_keeps_every_bit_beside_images_that_change(stylizer: OSASISStylizer, readout: str) -> None:
    images = pictures(2, 33, 47) * 1.5  # values beyond the range are nobody's to clip either
    found = stylizer.one_pass(readout=readout)(images, torch.tensor([0.0, 1.0]))
    assert torch.equal(found[0], images[0])
    assert not torch.equal(found[1], images[1])


@pytest.mark.parametrize("readout", ["combined", STUDENT])
@pytest.mark.parametrize("size", [(8, 8), (31, 45), (64, 200)])
def test_a_batch_gives_what_single_images_give_at_any_size(
    stylizer: OSASISStylizer, readout: str, size: tuple[int, int]
) -> None:
    images, strength = pictures(3, *size), torch.tensor([0.2, 0.6, 1.0])
    module = stylizer.one_pass(readout=readout)
    alone = torch.cat([module(images[i : i + 1], strength[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(module(images, strength), alone, atol=2e-5, rtol=0)
    assert alone.abs().max() <= 1


@pytest.mark.parametrize("readout", ["combined", STUDENT])
def test_the_frame_stays_as_it_is(stylizer: OSASISStylizer, readout: str) -> None:
    images = pictures(1, 48, 48)
    images[..., :7, :] = -0.98
    images[..., 40:] = -0.97
    found = stylizer.one_pass(readout=readout)(images, torch.ones(1))
    assert torch.equal(found[..., :7, :], images[..., :7, :])
    assert torch.equal(found[..., 40:], images[..., 40:])


@pytest.mark.parametrize(
    "one",
    [
        ColorMap(((0.9, 0.1, 0.0), (0.0, 0.8, 0.1), (0.1, 0.0, 1.1)), (0.1, 0.0, -0.1)),
        parametric(3, ()),
        parametric(3, TERMS),
        parametric(1, TERMS),
        parametric(4, ("quadratic", "field")),
        MomentMap((50.0, 9.0, 2.0), (20.0, 8.0, 6.0), (40.0, 20.0, 11.0), (12.0, 10.0, 9.0)),
        MomentMap((10.0,), (20.0,), (-5.0,), (12.0,)),
        MeanMap(
            (parametric(3, ("quadratic", "radial")), MomentMap((50.0,) * 3, (9.0,) * 3, (45.0,) * 3, (7.0,) * 3)), 0.6
        ),
    ],
    ids=lambda one: type(one).__name__,
)
def test_every_map_has_a_module_that_computes_the_same(one: PixelMap) -> None:
    module = map_module(one)
    channels = {MomentMap: lambda: len(one.source_mean), ColorMap: lambda: 3, MeanMap: lambda: 3}.get(
        type(one), lambda: len(one.low)
    )()
    images = torch.rand(2, channels, 13, 18, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
    torch.testing.assert_close(module(images), one(images), atol=1e-4, rtol=0)
    assert all(buffer.dtype == torch.float32 for buffer in module.buffers())
    assert list(module.buffers()), "its numbers are buffers, which move to a device"


def test_a_map_of_another_kind_is_refused() -> None:
    with pytest.raises(OsasisError, match="known kind"):
        map_module(lambda images: images)


def test_mixed_precision_does_not_round_the_colours(stylizer: OSASISStylizer) -> None:
    images, strength = pictures(2, 32, 32), torch.ones(2)
    for readout in ("combined", STUDENT):
        module = stylizer.one_pass(readout=readout)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(module(images, strength), module(images.clone(), strength))
            mixed = module(images, strength)
        assert torch.equal(mixed, module(images, strength))


def test_wrong_images_strengths_and_directions_are_refused(stylizer: OSASISStylizer) -> None:
    module = stylizer.one_pass()
    assert isinstance(module, OnePass)
    shapes = (((1, 4, 8, 8), (1,)), ((3, 8, 8), (3,)), ((1, 3, 8, 8), ()), ((3, 3, 8, 8), (1,)))
    for images, strength in ((torch.zeros(one), torch.ones(other)) for one, other in shapes):
        with pytest.raises(OsasisError, match="One pass takes images"):
            module(images, strength)
    with pytest.raises(OsasisError, match="direction"):
        stylizer.one_pass("sideways")


def test_detail_is_refused_rather_than_left_out(stylizer: OSASISStylizer) -> None:
    stylizer.detail = DetailChange(sharpness=0.5)
    with pytest.raises(OsasisError, match="detail=False"):
        stylizer.configured(detail=True).one_pass()
    assert isinstance(stylizer.configured(detail=True).one_pass("target_to_source"), OnePass)  # no detail on that way
    assert isinstance(stylizer.one_pass(), OnePass)


# --- the field of view without connected components -------------------------------------------------------------------


def test_round_octagonal_and_rectangular_views_are_found_as_with_components() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 90), torch.linspace(-1, 1, 120), indexing="ij")
    inside = torch.stack([x**2 + y**2 < 0.9, (x.abs() + y.abs()) < 1.4, (x.abs() < 0.8) & (y.abs() < 0.6)])[:, None]
    noise = 0.02 * torch.rand(3, 3, 90, 120, generator=torch.Generator().manual_seed(0))
    images = torch.where(inside, 0.2 * x - 0.1 + noise, -1 + noise)
    assert torch.equal(view_along_lines(images), field_of_view(images))
    assert torch.equal(view_along_lines(images), inside)


def test_a_dark_lumen_and_a_dark_image_belong_to_the_image() -> None:
    images = torch.zeros(3, 3, 40, 40)
    images[0, :, 15:25, 15:25] = -1
    images[1] = -1
    images[2, :, :, :5] = -1
    wanted = torch.ones(3, 1, 40, 40, dtype=torch.bool)
    wanted[2, :, :, :5] = False
    assert torch.equal(view_along_lines(images), wanted)
    assert torch.equal(field_of_view(images), wanted)


def test_a_bright_speck_in_the_frame_does_not_close_a_line() -> None:
    images = torch.zeros(1, 3, 40, 40)
    images[..., :12] = -1
    images[:, :, 20, 3] = 0.5
    found = view_along_lines(images)
    assert torch.equal(found, field_of_view(images))
    assert not found[..., 20, 5].any()


def test_images_of_a_batch_have_views_of_their_own() -> None:
    images = torch.rand(4, 1, 30, 30, generator=torch.Generator().manual_seed(1)) + 0.1
    images[1, :, :6] = -0.99
    images[2, :, :, -4:] = -0.85
    assert torch.equal(view_along_lines(images), torch.cat([view_along_lines(one[None]) for one in images]))
