"""The field of view: what is image and what is the frame around it (endoscope mask, air, zero padding)."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

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
