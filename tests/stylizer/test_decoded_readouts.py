"""The read-outs that run the networks on every image."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from specimens import SIZE, unit_images
from torchvision.transforms.functional import gaussian_blur

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.maps.field_of_view import Frame
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.stylizer.names import NETWORK_READOUTS
from nnunet_osasis.stylizer.readouts import READOUTS, DiffusionReadout, low_frequencies

DIRECTIONS = ("source_to_target", "target_to_source")
SIZES = [(SIZE, SIZE), (50, 41)]
BLACK = Frame(limit=-0.99, share=1.0, area=0.3)


def pictures(count: int, size: tuple[int, int]) -> torch.Tensor:
    """``(count, 3, *size)`` in [-0.5, 0.5], where nothing is clipped."""
    return resize(unit_images(count) * 0.5, size)


def decoding(patch: pytest.MonkeyPatch, change: torch.Tensor | float) -> None:
    """Let the networks' picture be the image they see plus ``change``."""
    patch.setattr(DiffusionReadout, "picture", lambda self, images, **_: images + change)


def test_they_are_among_the_readouts() -> None:
    assert {name for name, kind in READOUTS.items() if kind.needs_networks} == set(NETWORK_READOUTS)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("joint", [False, True])
def test_difference_of_equal_decoders_is_the_identity(
    stylizer: OSASISStylizer, size: tuple[int, int], direction: str, joint: bool
) -> None:
    stylizer.decoder = copy.deepcopy(stylizer.autoencoder.unet)
    same = stylizer.configured(sampler=replace(stylizer.config.sampler, spn_weight=0.0))
    images = pictures(3, size)
    found = same.stylize(images, readout="difference", direction=direction, joint=joint)
    torch.testing.assert_close(found, images, atol=1e-5, rtol=0)
    error = same.stylize(images, readout="raw", direction=direction, joint=joint) - images
    assert error.abs().max() > 1e-3  # the error of the round trip that cancels


@pytest.mark.parametrize("backwards", [False, True])
def test_difference_is_one_picture_minus_the_other(stylizer: OSASISStylizer, backwards: bool) -> None:
    images = pictures(2, (SIZE, SIZE))
    other = copy.copy(stylizer)
    plain = stylizer.decode_style(images, backwards=backwards)
    other.config = replace(stylizer.config, sampler=replace(stylizer.config.sampler, spn_weight=0.0))
    other.decoder = stylizer.autoencoder.unet
    if backwards:  # the round trip of the side that encodes
        other.decoder, other.autoencoder = stylizer.decoder, copy.deepcopy(stylizer.autoencoder)
        other.autoencoder.unet = stylizer.decoder
    expected = images + plain - other.decode_style(images, backwards=backwards)
    direction = DIRECTIONS[backwards]
    found = stylizer.stylize(images, readout="difference", direction=direction)
    torch.testing.assert_close(found, expected.clamp(-1, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_frequency_passes_a_constant_up_to_the_frame(
    stylizer: OSASISStylizer, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    decoding(monkeypatch, 0.25)
    stylizer.frame = BLACK
    images = pictures(2, size)
    images[..., : size[1] // 4] = -1
    found = stylizer.stylize(images, readout="frequency")
    inside = images[..., size[1] // 4 + 2 :]
    torch.testing.assert_close(found[..., size[1] // 4 + 2 :], inside + 0.25, atol=1e-5, rtol=0)
    assert torch.equal(found[..., : size[1] // 4], images[..., : size[1] // 4])


def test_nothing_outside_the_view_bleeds_in() -> None:
    view = torch.ones(1, 1, SIZE, SIZE, dtype=torch.bool)
    view[..., :8] = False
    change = torch.where(view, 0.1, -5.0).expand(1, 3, SIZE, SIZE)
    torch.testing.assert_close(low_frequencies(change, view)[..., 8:], torch.full((1, 3, SIZE, SIZE - 8), 0.1))


def test_frequency_drops_texture(stylizer: OSASISStylizer, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = (torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2 * 0.8 - 0.4
    decoding(monkeypatch, checks)
    images = pictures(2, (SIZE, SIZE))
    assert (stylizer.stylize(images, readout="frequency") - images).abs().max() < 1e-3
    assert (stylizer.stylize(images, readout="raw") - images).abs().max() > 0.3


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("joint", [False, True])
def test_frequency_keeps_the_sources_fine_detail(
    stylizer: OSASISStylizer, monkeypatch: pytest.MonkeyPatch, direction: str, joint: bool
) -> None:
    """``x - G(x)`` of source and result agree, with the real networks and with a decoder that paints noise.

    The G here is a quarter as wide as the read-out's: between the two, smoothing a smooth change again takes 2 %.
    """
    images = pictures(3, (SIZE, SIZE))
    fine = SIZE / 64

    def detail(x: torch.Tensor) -> torch.Tensor:
        return x - gaussian_blur(x, 5, fine)

    def change(readout: str) -> torch.Tensor:
        return stylizer.stylize(images, readout=readout, direction=direction, joint=joint) - images

    smooth = change("frequency")
    assert smooth.abs().max() > 1e-3
    assert detail(smooth).abs().max() < 0.05 * smooth.abs().max()
    decoding(monkeypatch, 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0)))
    assert detail(change("frequency")).abs().mean() < 0.02 * detail(change("raw")).abs().mean()


@pytest.mark.parametrize("readout", NETWORK_READOUTS)
@pytest.mark.parametrize("size", SIZES)
def test_frames_stay(stylizer: OSASISStylizer, readout: str, size: tuple[int, int]) -> None:
    images = pictures(2, size)
    images[..., :9] = -1
    stylizer.frame = BLACK
    stylizer.reference[..., :9] = 0
    for direction in DIRECTIONS:
        found = stylizer.stylize(images, readout=readout, direction=direction, joint=True)
        assert torch.equal(found[..., :9], images[..., :9])
        assert not torch.equal(found, images)
