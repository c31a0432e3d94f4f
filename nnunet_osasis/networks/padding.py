"""Any size in, the same size out: pad to what a network can halve, and crop its answer back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from nnunet_osasis.errors import OsasisError


def check_input(image: torch.Tensor, channels: int, axes: int) -> None:
    """Raise ``OsasisError`` unless ``image`` is a batch ``(B, channels, *spatial)`` with ``axes`` spatial axes."""
    if image.ndim != axes + 2 or image.shape[1] != channels:
        raise OsasisError(
            f"This network takes (B, {channels}, {'H, W' if axes == 2 else 'H, W, D'})",
            found=tuple(image.shape),
            remedy="Add the batch axis, or make the network with that in_channels.",
        )


def pad_to_multiple(image: torch.Tensor, multiple: int, *, minimum: int = 1) -> torch.Tensor:
    """Grow every side of ``(B, C, *spatial)`` to a multiple of ``multiple`` and to ``minimum`` at least.

    Two or three spatial axes. Both ends grow alike (the far end by one more where the growth is odd), by reflection;
    an axis too short to be reflected that far repeats its edge.
    """
    axes = image.ndim - 2
    for axis, size in enumerate(image.shape[2:]):
        growth = max(minimum + -minimum % multiple, size + -size % multiple) - size
        if growth > 0:
            near, far = growth // 2, growth - growth // 2
            padding = [0, 0] * axes
            last_first = 2 * (axes - 1 - axis)  # F.pad lists the last axis first
            padding[last_first : last_first + 2] = near, far
            image = F.pad(image, padding, mode="reflect" if far < size else "replicate")
    return image


def crop_to(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Cut the middle of a spatial size out of ``(B, C, *spatial)``: undoes :func:`pad_to_multiple`."""
    for axis, (have, want) in enumerate(zip(image.shape[2:], size, strict=True), start=2):
        image = image.narrow(axis, (have - want) // 2, want)
    return image
