"""One pass: a module in pure torch that restyles as ``stylize`` does, for training steps and exported files."""

from __future__ import annotations

import pytest
import torch
from specimens import unit_images

from nnunet_osasis import OsasisError
from nnunet_osasis.maps.detail import DetailChange
from nnunet_osasis.maps.field_of_view import Frame, find_frame
from nnunet_osasis.stylizer.config import DIRECTIONS
from nnunet_osasis.stylizer.names import STUDENT
from nnunet_osasis.stylizer.one_pass import OnePass
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

ONE_PASS = ("decoder", "decoder_bent", "moments", "pair", "calibrator", "combined", STUDENT)


def pictures(count: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    """Smooth pictures in [-1, 1], all in view."""
    images = torch.nn.functional.interpolate(unit_images(count, channels=channels), (height, width), mode="bilinear")
    return images.clamp(-0.7, 1)


@pytest.mark.parametrize("readout", ONE_PASS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_pass_is_what_stylize_gives(stylizer: OSASISStylizer, readout: str, direction: str) -> None:
    images, strength = pictures(3, 40, 57), torch.tensor([1.0, 0.4, 0.75])
    images[..., :4] = -1
    stylizer.frame = Frame(limit=-0.9, share=1.0, area=0.1)
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
    stylizer.frame = find_frame(images)
    found = stylizer.one_pass(readout=readout)(images, torch.ones(1))
    assert torch.equal(found[..., :7, :], images[..., :7, :])
    assert torch.equal(found[..., 40:], images[..., 40:])


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
