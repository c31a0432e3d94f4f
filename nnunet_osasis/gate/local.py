"""Local structure: how much of one image's detail another one explains, window by window."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

WINDOW_PX = 17
"""Side of a window in pixels: as large as a small lesion with its surroundings."""

SIGMA_PX = 1.0
"""Standard deviation in pixels of the blur before anything is compared: noise and compression are no structure."""

FLOOR = 0.02
"""Share of the image's own variance below which a window counts as flat."""

RIDGE = 1e-5
"""Regularization of the affine map of each window, absolute and relative to the window's variance."""

SLICES = 8
"""Number of a volume's slices that are compared at once, to bound memory."""


def smooth(images: np.ndarray) -> torch.Tensor:
    """``(B, C, H, W)`` in [-1, 1] without its noise, float32."""
    return torch.from_numpy(
        ndimage.gaussian_filter(np.asarray(images, np.float32), (0, 0, SIGMA_PX, SIGMA_PX), mode="nearest")
    )


def _means(images: torch.Tensor) -> torch.Tensor:
    """Average over windows a quarter of their side apart, first along columns, then along rows.

    Shifted slices are added up, which is three times as fast as ``avg_pool2d`` on a CPU and gives the same bits.
    """
    for axis in (-2, -1):
        length = images.shape[axis]
        side = min(WINDOW_PX, length)
        step = max(1, side // 4)
        missing = -(length - side) % step  # so that the last window ends with the image
        if missing:
            images = torch.cat([images, *[images.narrow(axis, length - 1, 1)] * missing], dim=axis)
        reach = length + missing - side + 1
        every = (..., slice(None, None, step), slice(None)) if axis == -2 else (..., slice(None, None, step))
        total = images.narrow(axis, 0, reach)[every].clone()
        for offset in range(1, side):
            total += images.narrow(axis, offset, reach)[every]
        images = total / side
    return images


def _covariances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Covariances of the channels of ``a`` ``(B, C, H, W)`` with those of ``b`` by window: ``(B, h, w, C, C)``."""
    products = _means((a[:, :, None] * b[:, None]).flatten(1, 2))
    outer = (_means(a)[:, :, None] * _means(b)[:, None]).flatten(1, 2)
    return (products - outer).unflatten(1, (a.shape[1], b.shape[1])).permute(0, 3, 4, 1, 2)


def _unexplained(of: torch.Tensor, by: torch.Tensor, cross: torch.Tensor, floor: torch.Tensor) -> torch.Tensor:
    """Share of the variance ``of`` that an affine map of the other image leaves: ``(B, h, w)`` in [0, 1]."""
    ridge = RIDGE + RIDGE * by.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    slope = torch.linalg.solve(by + ridge * torch.eye(by.shape[-1]), cross.transpose(-1, -2))
    variance = of.diagonal(dim1=-2, dim2=-1).sum(-1)
    left = (variance - (cross * slope.transpose(-1, -2)).sum((-1, -2))).clamp(min=0)
    return left / (variance + floor)


def unexplained(source: torch.Tensor, stylized: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Structure that went missing, and structure that came from nowhere.

    In every window one image is predicted from the other by an affine map of its channels, so that no change of
    color, contrast or brightness counts, not even one that differs between places.

    Args:
        source: ``(B, C, H, W)``, without noise (:func:`smooth`). ``B`` are the slices of one volume, or 1: what counts
            as flat is decided for all of them together.
        stylized: the restyled image, likewise.

    Returns:
        Share of the source's variance that the stylized image does not explain, and the other way round: two maps
        ``(B, h, w)`` in [0, 1].
    """
    source, stylized = (_standardized(image) for image in (source, stylized))
    floor = torch.tensor(FLOOR * source.shape[1])
    lost, invented = [], []
    for a, b in zip(source.split(SLICES), stylized.split(SLICES), strict=True):
        within_a, within_b, cross = _covariances(a, a), _covariances(b, b), _covariances(a, b)
        lost.append(_unexplained(within_a, within_b, cross, floor))
        invented.append(_unexplained(within_b, within_a, cross.transpose(-1, -2), floor))
    return torch.cat(lost), torch.cat(invented)


def _standardized(images: torch.Tensor) -> torch.Tensor:
    """Channels around 0, and 1 for their mean variance: dim images are judged as bright ones are."""
    centered = images - images.mean(dim=(0, 2, 3), keepdim=True)
    return centered / centered.square().mean().sqrt().clamp(min=1e-4)
