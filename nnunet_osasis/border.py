"""The field of view: what is image and what is the frame around it (endoscope mask, air, zero padding)."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

DARK = -0.8
"""In [-1, 1]: 25 of 255. Frames of real endoscopes are not quite black: up to 24 of 255 in public colonoscopy sets."""


def field_of_view(images: torch.Tensor, *, dark: float = DARK) -> torch.Tensor:
    """True where an image shows something: ``(B, C, H, W)`` in [-1, 1] to bool ``(B, 1, H, W)``.

    The frame is every region that is dark in all channels and touches the edge of the image. A dark lumen
    inside the image belongs to the image. An image that is dark throughout is all image.
    """
    black = (images <= dark).all(dim=1).cpu().numpy()
    inside = np.ones_like(black)
    for index, mask in enumerate(black):
        labels, count = ndimage.label(mask)
        if count:
            edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
            frame = np.isin(labels, np.unique(edge[edge > 0]))
            if not frame.all():
                inside[index] = ~frame
    return torch.from_numpy(inside)[:, None].to(images.device)
