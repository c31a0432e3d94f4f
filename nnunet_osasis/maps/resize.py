"""Resampling of images to another size, by torch's own function and in a form that exporters write."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F


def resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize ``(B, C, H, W)`` to ``(B, C, *size)``, bilinear and antialiased; the identity at equal size."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def rows_of(small: torch.Tensor, height: int, width: int, rows: slice, *, antialias: bool = False) -> torch.Tensor:
    """Enlarge ``(B, C, h, w)`` to ``(B, C, height, width)`` bilinearly and return its ``rows`` alone.

    Equal to ``F.interpolate`` up to the last bit, and bit for bit where all rows are asked for.
    """
    if rows == slice(0, height) or height < small.shape[-2]:
        if tuple(small.shape[-2:]) != (height, width):
            small = F.interpolate(
                small, size=(height, width), mode="bilinear", antialias=antialias, align_corners=False
            )
        return small[..., rows, :]
    place = torch.arange(rows.start, rows.stop, device=small.device, dtype=torch.float64) + 0.5
    place = (place * (small.shape[-2] / height) - 0.5).clamp(0, small.shape[-2] - 1)
    above = place.long()
    below = (above + 1).clamp(max=small.shape[-2] - 1)
    weight = (place - above).to(small)[:, None]
    lines = torch.lerp(small[..., above, :], small[..., below, :], weight)
    return F.interpolate(lines, size=(len(place), width), mode="bilinear", antialias=antialias, align_corners=False)


def line_weights(size: int, new_size: int, like: torch.Tensor) -> torch.Tensor:
    """Return antialiased linear resampling of a line as a matrix ``(new_size, size)``, equal to ``F.interpolate``'s.

    As a matrix it is quick for few channels on a CPU, and any exporter can write it.
    """
    place = torch.arange(size, device=like.device, dtype=like.dtype) + 0.5
    center = (torch.arange(new_size, device=like.device, dtype=like.dtype) + 0.5) * (size / new_size)
    steepness: Any = torch.sym_min(size, new_size) / size  # min as exporters understand it
    weights = (1 - (place[None, :] - center[:, None]).abs() * steepness).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def resample(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize ``(B, C, h, w)`` to ``(B, C, height, width)``, bilinear and antialiased, by two products of matrices."""
    across = torch.matmul(images, line_weights(images.shape[-1], width, images).T)
    return torch.matmul(line_weights(images.shape[-2], height, images), across)
