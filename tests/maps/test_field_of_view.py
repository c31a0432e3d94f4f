"""What is image and what is the frame around it, by connected components and along lines."""

from __future__ import annotations

import pytest
import torch

from nnunet_osasis.maps.field_of_view import field_of_view

BOTH = pytest.mark.parametrize("connected", [True, False], ids=["components", "lines"])


@BOTH
def test_the_frame_is_dark_and_touches_the_edge_and_a_dark_lumen_is_image(connected: bool) -> None:
    image = torch.zeros(1, 3, 16, 16)
    image[..., :3] = -1
    image[..., 7:10, 7:10] = -1
    view = field_of_view(image, connected=connected)
    assert not view[..., :3].any()
    assert view[..., 7:10, 7:10].all()
    assert field_of_view(torch.full((1, 1, 4, 4), -1.0), connected=connected).all()


@BOTH
def test_a_dark_scene_that_runs_into_the_frame_stays_image(connected: bool) -> None:
    """A dim lamp: the corner lies below any fixed threshold, but is neither as dark nor as even as the frame."""
    generator = torch.Generator().manual_seed(0)
    image = 0.2 * torch.rand(1, 3, 24, 24, generator=generator) - 0.4
    image[..., :12, :12] = -0.92 + 0.08 * torch.rand(1, 3, 12, 12, generator=generator)
    frame = torch.zeros(24, 24, dtype=torch.bool)
    frame[:3] = frame[-3:] = frame[:, :3] = frame[:, -3:] = True
    image[..., frame] = -1 + 0.01 * torch.rand(1, 3, int(frame.sum()), generator=generator)
    assert torch.equal(field_of_view(image, connected=connected)[0, 0], ~frame)


@BOTH
@pytest.mark.parametrize("level", [-1.0, -0.9, -0.82])
def test_a_frame_need_not_be_black(level: float, connected: bool) -> None:
    image = torch.zeros(1, 3, 16, 16)
    image[..., :3] = level + 0.02 * torch.rand(1, 3, 16, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(~field_of_view(image, connected=connected)[0, 0, 0], torch.arange(16) < 3)


def test_round_octagonal_and_rectangular_views_are_found_as_with_components() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 90), torch.linspace(-1, 1, 120), indexing="ij")
    inside = torch.stack([x**2 + y**2 < 0.9, (x.abs() + y.abs()) < 1.4, (x.abs() < 0.8) & (y.abs() < 0.6)])[:, None]
    noise = 0.02 * torch.rand(3, 3, 90, 120, generator=torch.Generator().manual_seed(0))
    images = torch.where(inside, 0.2 * x - 0.1 + noise, -1 + noise)
    assert torch.equal(field_of_view(images, connected=False), field_of_view(images))
    assert torch.equal(field_of_view(images, connected=False), inside)


@BOTH
def test_a_dark_lumen_and_a_dark_image_belong_to_the_image(connected: bool) -> None:
    images = torch.zeros(3, 3, 40, 40)
    images[0, :, 15:25, 15:25] = -1
    images[1] = -1
    images[2, :, :, :5] = -1
    wanted = torch.ones(3, 1, 40, 40, dtype=torch.bool)
    wanted[2, :, :, :5] = False
    assert torch.equal(field_of_view(images, connected=connected), wanted)


def test_a_bright_speck_in_the_frame_does_not_close_a_line() -> None:
    images = torch.zeros(1, 3, 40, 40)
    images[..., :12] = -1
    images[:, :, 20, 3] = 0.5
    found = field_of_view(images, connected=False)
    assert torch.equal(found, field_of_view(images))
    assert not found[..., 20, 5].any()


@BOTH
def test_images_of_a_batch_have_views_of_their_own(connected: bool) -> None:
    images = torch.rand(4, 1, 30, 30, generator=torch.Generator().manual_seed(1)) + 0.1
    images[1, :, :6] = -0.99
    images[2, :, :, -4:] = -0.85
    alone = torch.cat([field_of_view(one[None], connected=connected) for one in images])
    assert torch.equal(field_of_view(images, connected=connected), alone)


def test_a_bay_that_no_line_opens_is_frame_for_components_alone() -> None:
    image = torch.zeros(1, 1, 30, 30)
    image[..., :6] = -1
    image[..., 10:14, :16] = -1  # a way in from the frame,
    image[..., 10:20, 12:16] = -1  # and round a corner
    bay = (..., slice(15, 20), slice(12, 16))
    assert not field_of_view(image)[bay].any()
    assert field_of_view(image, connected=False)[bay].all()


@BOTH
def test_slices_of_a_volume_share_the_level_of_their_frame(connected: bool) -> None:
    volume = torch.zeros(3, 1, 20, 20)
    volume[..., :3] = -0.99
    volume[1] = -0.9  # dark throughout, but brighter than the frame of its neighbors
    volume[1, ..., :3] = -0.99
    joint = field_of_view(volume, joint=True, connected=connected)
    assert torch.equal(joint, joint[:1].expand_as(joint))
    assert not joint[..., :3].any()
    assert field_of_view(volume, connected=connected)[1].all()
