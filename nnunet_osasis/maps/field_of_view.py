"""The field of view: what is image and what is the frame around it (endoscope mask, air, zero padding)."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional as F

DARK = -0.8
"""Level in [-1, 1] that no frame exceeds (25 of 255): frames of public colonoscopy sets reach 24 of 255."""

NOISE = 6 / 127.5
"""Distance in [-1, 1] by which a frame's pixels may always exceed its level: 6 of 255 gray levels (compression)."""

MAD_TO_STD = 1.4826
"""Ratio of the standard deviation of normal noise to its median absolute deviation."""


def field_of_view(
    images: torch.Tensor, *, dark: float = DARK, joint: bool = False, connected: bool = True
) -> torch.Tensor:
    """Return True where an image shows something: ``(B, C, H, W)`` in [-1, 1] to bool ``(B, 1, H, W)``.

    The frame is every region that is dark in all channels and reaches the edge of the image. A dark lumen inside the
    image belongs to the image, and so does one that touches the frame unless it is as dark and as even as the frame is
    along the image's edge. An image that is dark throughout is all image.

    Args:
        images: ``(B, C, H, W)`` in [-1, 1].
        dark: level that no frame exceeds.
        joint: whether the images are the slices of one volume, in order: they share one level of the frame, connected
            regions reach through slices, and only a volume that is dark throughout is all image. The first and the
            last slice are no edges.
        connected: whether the frame is followed round every corner, by connected components on the CPU. Otherwise a
            pixel is frame when nothing but frame, specks of noise aside, lies between it and an edge along its row or
            its column: pure torch without a branch on values or a wait for the device, for training steps and exported
            networks. Round, octagonal and rectangular views come out the same; a dark bay of a view's outline that
            neither a row nor a column opens then counts as image.

    >>> image = torch.zeros(1, 3, 4, 4)
    >>> image[..., 0] = -1  # a black left edge
    >>> field_of_view(image)[0, 0, 0].tolist()
    [False, True, True, True]
    """
    brightest = images.amax(dim=1, keepdim=True).float()
    shown = brightest > _frame_limit(brightest, dark, joint)
    if connected:
        slices = shown[:, 0].cpu().numpy()
        stacks = [slices] if joint else slices[:, None]
        inside = [~_touching_edge(~stack) for stack in stacks]
        return torch.from_numpy(np.concatenate(inside) if inside else slices)[:, None].to(images.device)
    solid = _without_specks(shown)
    return shown | (_between(solid, -1) & _between(solid, -2))


def _frame_limit(brightest: torch.Tensor, dark: float, joint: bool) -> torch.Tensor:
    """Return the level that the frame does not exceed, ``(B or 1, 1, 1, 1)``; minus infinity where there is no frame.

    Dark scenes (a dim lamp, a vignette) run into the frame at any fixed threshold. So the edge of the picture says how
    dark and how noisy the frame itself is, and nothing brighter belongs to it.

    Args:
        brightest: brightest channel ``(B, 1, H, W)``.
        dark: level that no frame exceeds.
        joint: whether all images share one level.
    """
    rows, columns = brightest[:, 0], brightest[:, 0, 1:-1]
    ring = torch.cat([rows[:, 0], rows[:, -1], columns[..., 0], columns[..., -1]], dim=1)
    anything = (brightest > dark).flatten(1).any(dim=1, keepdim=True)
    if joint:
        ring, anything = ring.flatten()[None], anything.any(dim=0, keepdim=True)
    known = (ring <= dark) & anything
    level = _median(ring, known)
    spread = MAD_TO_STD * _median((ring - level).abs(), known)
    limit = (level + torch.clamp(4 * spread, min=NOISE)).clamp(max=dark)
    return torch.where(known.any(dim=1, keepdim=True), limit, torch.full_like(level, -torch.inf))[:, :, None, None]


def _median(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the median of the ``known`` entries of each row of ``(B, N)``, ``(B, 1)``."""
    ordered = torch.where(known, values, torch.full_like(values, 1e4)).sort(dim=1).values
    count = known.sum(dim=1, keepdim=True).clamp(min=1)
    return (ordered.gather(1, (count - 1) // 2) + ordered.gather(1, count // 2)) / 2


def _touching_edge(black: np.ndarray) -> np.ndarray:
    """Return the part of ``black`` ``(D, H, W)`` that is connected to an edge of a slice."""
    labels, count = ndimage.label(black)
    edges = (labels[:, 0], labels[:, -1], labels[..., 0], labels[..., -1])
    touching = np.zeros(count + 1, dtype=bool)
    touching[np.concatenate([edge.ravel() for edge in edges])] = True
    touching[0] = False
    return touching[labels]


def _without_specks(shown: torch.Tensor) -> torch.Tensor:
    """Open by 3 x 3 pixels: a bright speck in the frame, which a component flows round, must not close a line."""
    eroded = -F.max_pool2d(-shown.float(), 3, stride=1, padding=1)
    return F.max_pool2d(eroded, 3, stride=1, padding=1) > 0.5


def _between(shown: torch.Tensor, axis: int) -> torch.Tensor:
    """Return True from the first to the last shown pixel of every line along ``axis``."""
    size = shown.shape[axis]
    place = torch.arange(size, device=shown.device, dtype=torch.float32)
    place = place.view(-1, 1) if axis == -2 else place
    first = torch.where(shown, place, torch.full_like(place, 1e9)).amin(dim=axis, keepdim=True)
    last = torch.where(shown, place, torch.full_like(place, -1.0)).amax(dim=axis, keepdim=True)
    return (place >= first) & (place <= last)
