"""Work through large images band by band, so that memory beyond the image and its result does not grow with them.

A band is some slices of a volume, or some rows of one slice. No read-out's arithmetic looks across bands, so that the
result is the same bit for bit however an image is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

BAND_VALUES = 2**20
"""Most values of one band, unless a single row has more; what a band needs at once is some 100 bytes a value."""


@dataclass(frozen=True)
class Band:
    """Where a part of a stack ``(D, ..., H, W)`` lies.

    Attributes:
        slices: of ``D``.
        rows: of ``H``.
        height: ``H``: terms that depend on the place need it.
    """

    slices: slice
    rows: slice
    height: int

    def of(self, stack: torch.Tensor) -> torch.Tensor:
        """The band's part of a tensor ``(D, ..., H, W)`` (a view)."""
        return stack[self.slices, ..., self.rows, :]

    def of_array(self, array: np.ndarray) -> np.ndarray:
        """The band's part of an array ``(C, H, W)`` or ``(C, D, H, W)`` (a view), as the axes ``(C, d, h, W)``."""
        return (array if array.ndim == 4 else array[:, None])[:, self.slices, self.rows]


def bands(slices: int, channels: int, height: int, width: int) -> Iterator[Band]:
    """Cut a stack ``(D, C, H, W)`` into bands of ``BAND_VALUES`` at most: whole slices if they fit, else rows of one.

    >>> [band.slices for band in bands(5, 1, 1024, 512)]
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    row = channels * width
    together = max(1, BAND_VALUES // (row * height))
    high = height if row * height <= BAND_VALUES else max(1, BAND_VALUES // row)
    for first in range(0, slices, together):
        for top in range(0, height, high):
            yield Band(slice(first, min(first + together, slices)), slice(top, min(top + high, height)), height)


def in_bands(images: torch.Tensor, change: Callable[[torch.Tensor, Band], torch.Tensor]) -> torch.Tensor:
    """Put together what ``change(part, band)`` makes of the bands of images ``(B, C, H, W)``."""
    parts = list(bands(*images.shape))
    if len(parts) < 2:
        return change(images, parts[0]) if parts else images.clone()
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    for band in parts:
        band.of(result).copy_(change(band.of(images).contiguous(), band))
    return result
