"""The field of view: what is image and what is the frame around it (endoscope mask, air, zero padding).

The field of view in torch alone: on any device, in a training step, and inside exported networks.

``border.field_of_view`` follows a frame round every corner, which takes connected components and a CPU. Here a pixel
is frame when nothing but frame, specks of noise aside, lies between it and an edge of the image along its row or its
column. Round, octagonal and rectangular views come out the same; a dark bay of a view's outline that neither a row nor
a column opens counts as image here.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

DARK = -0.8
"""In [-1, 1]: 25 of 255. Frames of real endoscopes are not quite black: up to 24 of 255 in public colonoscopy sets."""

NOISE = 6 / 127.5
"""What a frame's pixels may exceed its level by at least: six of 255 grey levels (compression)."""


def field_of_view(images: torch.Tensor, *, dark: float = DARK, joint: bool = False) -> torch.Tensor:
    """True where an image shows something: ``(B, C, H, W)`` in [-1, 1] to bool ``(B, 1, H, W)``.

    The frame is every region that is dark in all channels and touches the edge of the image. A dark lumen
    inside the image belongs to the image, and so does one that touches the frame unless it is as dark and as even as
    the frame is along the image's edge. An image that is dark throughout is all image.

    Args:
        joint: the images are the slices of one volume, in order: regions connect through slices, and only a volume
            that is dark throughout is all image. The first and the last slice are no edges.
    """
    brightest = images.amax(dim=1).float().cpu().numpy()
    stacks = brightest[None] if joint else brightest[:, None]
    inside = np.concatenate([~_frame(stack, dark) for stack in stacks]) if len(brightest) else brightest > dark
    return torch.from_numpy(inside)[:, None].to(images.device)


def _frame(brightest: np.ndarray, dark: float) -> np.ndarray:
    """The frame of a stack of slices ``(D, H, W)``, given its brightest channel.

    Dark scenes (a dim lamp, a vignette) run into the frame at any fixed threshold. So the edge of the picture says how
    dark and how noisy the frame itself is, and nothing brighter belongs to it.
    """
    coarse = _touching(brightest <= dark)
    ring = np.zeros_like(coarse)
    ring[:, [0, -1]] = ring[:, :, [0, -1]] = True
    known = brightest[coarse & ring]
    if not known.size:
        return coarse
    level = float(np.median(known))
    spread = 1.4826 * float(np.median(np.abs(known - level)))
    return _touching(brightest <= min(dark, level + max(NOISE, 4 * spread)))


def _touching(black: np.ndarray) -> np.ndarray:
    """The part of ``black`` ``(D, H, W)`` that is connected to the edge of a slice; nothing if that is everything."""
    labels, count = ndimage.label(black)
    if not count:
        return black
    edge = np.concatenate(
        [labels[:, 0].ravel(), labels[:, -1].ravel(), labels[..., 0].ravel(), labels[..., -1].ravel()]
    )
    touching = np.zeros(count + 1, dtype=bool)
    touching[edge] = True
    touching[0] = False
    frame = touching[labels]
    return np.zeros_like(frame) if frame.all() else frame


ROBUST = 1.4826
"""Median absolute deviation to standard deviation."""


def view_along_lines(images: torch.Tensor, *, dark: float = DARK) -> torch.Tensor:
    """True where an image shows something: ``(B, C, H, W)`` in [-1, 1] to bool ``(B, 1, H, W)``.

    The level and the noise of the frame are read along the image's edge as in ``border.field_of_view``. An image that
    is dark throughout is all image. No branch on values and no wait for the device.
    """
    brightest = images.amax(dim=1, keepdim=True)
    height, width = images.shape[-2], images.shape[-1]
    rows, columns = brightest[:, 0], brightest[:, 0, 1 : height - 1]
    ring = torch.cat([rows[:, 0], rows[:, height - 1], columns[..., 0], columns[..., width - 1]], dim=1)
    known = (ring <= dark) & (brightest > dark).flatten(1).any(dim=1, keepdim=True)
    level = _median(ring, known)
    spread = ROBUST * _median((ring - level).abs(), known)
    limit = torch.minimum(level + torch.clamp(4 * spread, min=NOISE), torch.full_like(level, dark))
    limit = torch.where(known.any(dim=1, keepdim=True), limit, torch.full_like(level, -torch.inf))
    shown = brightest > limit[:, :, None, None]
    solid = _without_specks(shown)
    inside = shown | (_between(solid, -1) & _between(solid, -2))
    return inside | ~shown.flatten(1).any(dim=1)[:, None, None, None]


def _without_specks(shown: torch.Tensor) -> torch.Tensor:
    """Opened by 3 x 3 pixels: a bright speck in the frame, which a component flows round, must not close a line."""
    eroded = -F.max_pool2d(-shown.float(), 3, stride=1, padding=1)
    return F.max_pool2d(eroded, 3, stride=1, padding=1) > 0.5


def _median(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Of the ``known`` entries of each row of ``(B, N)``, the mean of the middle two of an even number: ``(B, 1)``."""
    ordered = torch.where(known, values, torch.full_like(values, 1e4)).sort(dim=1).values
    count = known.sum(dim=1, keepdim=True).clamp(min=1)
    return (ordered.gather(1, (count - 1) // 2) + ordered.gather(1, count // 2)) / 2


def _between(shown: torch.Tensor, axis: int) -> torch.Tensor:
    """True from the first to the last shown pixel of every line along ``axis``."""
    size = shown.shape[axis]
    place = torch.arange(size, device=shown.device, dtype=torch.float32)
    place = place.view(-1, 1) if axis == -2 else place
    first = torch.where(shown, place, torch.full_like(place, 1e9)).amin(dim=axis, keepdim=True)
    last = torch.where(shown, place, torch.full_like(place, -1.0)).amax(dim=axis, keepdim=True)
    return (place >= first) & (place <= last)
