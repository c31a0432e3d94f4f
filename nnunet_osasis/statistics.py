"""Pooled colour statistics and the moment matching between two of them (Reinhard et al., 2001)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from skimage.color import lab2rgb, rgb2lab

from nnunet_osasis.border import field_of_view


def to_opponent(images: torch.Tensor) -> torch.Tensor:
    """[-1, 1] to the space moments are matched in: CIELAB for three channels, unchanged otherwise."""
    if images.shape[1] != 3:
        return images
    rgb = (images.permute(0, 2, 3, 1).cpu().numpy().astype(np.float64) + 1) / 2
    return torch.from_numpy(rgb2lab(np.clip(rgb, 0, 1))).permute(0, 3, 1, 2).to(images)


def from_opponent(values: torch.Tensor) -> torch.Tensor:
    """The inverse of ``to_opponent``, clipped to [-1, 1]."""
    if values.shape[1] != 3:
        return values.clamp(-1, 1)
    import warnings

    with warnings.catch_warnings():  # colours outside sRGB are clipped on purpose
        warnings.simplefilter("ignore", UserWarning)
        rgb = lab2rgb(values.permute(0, 2, 3, 1).cpu().numpy().astype(np.float64))
    return torch.from_numpy(np.clip(rgb, 0, 1) * 2 - 1).permute(0, 3, 1, 2).to(values)


@dataclass(frozen=True)
class PooledStatistics:
    """Mean and standard deviation per channel over all pixels in view of a set of images (opponent space)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: torch.Tensor) -> PooledStatistics:
        """Statistics of ``(B, C, H, W)`` in [-1, 1], the frame left out."""
        values = to_opponent(images).double()
        keep = field_of_view(images).expand_as(values)
        pixels = [values[:, c][keep[:, c]] for c in range(values.shape[1])]
        return cls(tuple(p.mean().item() for p in pixels), tuple(p.std().clamp(min=1e-6).item() for p in pixels))

    def move(self, images: torch.Tensor, to: PooledStatistics) -> torch.Tensor:
        """Match moments: images drawn from ``self`` come out with the statistics of ``to``; frames stay."""
        values = to_opponent(images)

        def column(v: tuple[float, ...]) -> torch.Tensor:
            return torch.tensor(v).to(values)[None, :, None, None]

        moved = (values - column(self.mean)) * (column(to.std) / column(self.std)) + column(to.mean)
        return torch.where(field_of_view(images), from_opponent(moved), images)
