"""The field of view: what is image and what is the frame around it (endoscope mask, air, zero padding)."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

DARK = -0.8
"""In [-1, 1]: 25 of 255. Frames of real endoscopes are not quite black: up to 24 of 255 in public colonoscopy sets."""


def field_of_view(images: torch.Tensor, *, dark: float = DARK, joint: bool = False) -> torch.Tensor:
    """True where an image shows something: ``(B, C, H, W)`` in [-1, 1] to bool ``(B, 1, H, W)``.

    The frame is every region that is dark in all channels and touches the edge of the image. A dark lumen
    inside the image belongs to the image. An image that is dark throughout is all image.

    Args:
        joint: the images are the slices of one volume, in order: regions connect through slices, and only a volume
            that is dark throughout is all image. The first and the last slice are no edges.
    """
    black = (images <= dark).all(dim=1).cpu().numpy()
    stacks = black[None] if joint else black[:, None]
    inside = np.concatenate([~_frame(stack) for stack in stacks]) if len(black) else black
    return torch.from_numpy(inside)[:, None].to(images.device)


def _frame(black: np.ndarray) -> np.ndarray:
    """The frame of a stack of slices ``(D, H, W)``, given where it is black."""
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
