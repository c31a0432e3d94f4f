from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F


def resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Antialiased bilinear resize of ``(B, C, H, W)`` to ``(B, C, *size)``; the identity at equal size."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def line_weights(given: int, wanted: int, like: torch.Tensor) -> torch.Tensor:
    """Antialiased linear resampling of a line as a matrix ``(wanted, given)``, equal to ``F.interpolate``'s.

    As a matrix it is quick for few channels on a CPU, and any exporter can write it.
    """
    place = torch.arange(given, device=like.device, dtype=like.dtype) + 0.5
    centre = (torch.arange(wanted, device=like.device, dtype=like.dtype) + 0.5) * (given / wanted)
    steepness: Any = torch.sym_min(given, wanted) / given  # min as exporters understand it
    weights = (1 - (place[None, :] - centre[:, None]).abs() * steepness).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def resample(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """``(B, C, h, w)`` to ``(B, C, height, width)``, bilinear and antialiased."""
    across = torch.matmul(images, line_weights(images.shape[-1], width, images).T)
    return torch.matmul(line_weights(images.shape[-2], height, images), across)
