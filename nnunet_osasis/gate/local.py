"""Local structure: how much of one image's detail another one explains, window by window."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

WINDOW_PX = 17
"""Side of a window in pixels: as large as a small lesion with its surroundings."""

SIGMA_PX = 1.0
"""Standard deviation in pixels of the blur before anything is compared: noise and compression are no structure."""

FLAT = 0.02
"""Share of the source's variance below which one of its windows counts as flat."""

SMOOTH = 0.005
"""The same for the stylized image's windows: steps through smooth tissue are faint, and the source has none."""

NOISE_LEFT = 0.1
"""Share of white noise's variance that the blur leaves (0.08), and a little more."""

NOISE_FLOOR = 0.3
"""Share of the noise's variance below which a stylized image's window counts as flat."""

RIDGE = 1e-5
"""Regularization of the affine map of each window, absolute and relative to the window's variance."""

SLICES = 8
"""Number of a volume's slices that are compared at once, to bound memory."""


def smooth(images: np.ndarray) -> torch.Tensor:
    """``(B, C, H, W)`` in [-1, 1] without its noise, float32."""
    return torch.from_numpy(
        ndimage.gaussian_filter(np.asarray(images, np.float32), (0, 0, SIGMA_PX, SIGMA_PX), mode="nearest")
    )


def noise_variance(images: np.ndarray) -> float:
    """Variance of the noise in ``(B, C, H, W)``, added over channels: that of the median pixel (Immerkaer's mask)."""
    if min(images.shape[-2:]) < 3:
        return 0.0
    rows = images[:, :, :-2] - 2 * images[:, :, 1:-1] + images[:, :, 2:]
    both = (rows[..., :-2] - 2 * rows[..., 1:-1] + rows[..., 2:])[:, :, ::2, ::2]  # a quarter says as much
    typical = np.median(np.abs(both).swapaxes(0, 1).reshape(both.shape[1], -1), axis=1) * 1.4826 / 6
    return float((typical**2).sum())


def _sums(images: torch.Tensor, axis: int, start: int, step: int, count: int, terms: int) -> torch.Tensor:
    """Sums of ``terms`` neighbors along ``axis``, from every ``step``-th pixel on: ``count`` of them."""
    end = (count - 1) * step + 1
    slices = [images.narrow(axis, start + offset, end) for offset in range(terms)]
    every = (..., slice(None, None, step), slice(None)) if axis == -2 else (..., slice(None, None, step))
    total = slices[0][every].clone()
    for other in slices[1:]:
        total += other[every]
    return total


def _means(images: torch.Tensor) -> torch.Tensor:
    """Average over windows a quarter of their side apart, first along rows, then along columns.

    A window is a few strips and what is left of its side. Strips are added up once, which is ten times as fast as
    ``avg_pool2d`` on a CPU.
    """
    for axis in (-2, -1):
        length = images.shape[axis]
        side = min(WINDOW_PX, length)
        step = max(1, side // 4)
        missing = -(length - side) % step  # so that the last window ends with the image
        if missing:
            images = torch.cat([images, *[images.narrow(axis, length - 1, 1)] * missing], dim=axis)
        windows, strips = (length + missing - side) // step + 1, side // step
        strip = _sums(images, axis, 0, step, windows + strips - 1, step)
        total = _sums(strip, axis, 0, 1, windows, strips)
        if rest := side - strips * step:
            total += _sums(images, axis, strips * step, step, windows, rest)
        images = total / side
    return images


def _covariances(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Covariances by window of ``(B, C, H, W)``: of ``a``, of ``b``, of ``a`` with ``b``, each ``(B, h, w, C, C)``."""
    both, channels = torch.cat([a, b], dim=1), a.shape[1]
    first, second = (index.tolist() for index in np.triu_indices(2 * channels))
    means = _means(both)
    upper = torch.stack([_means(both[:, i] * both[:, j]) for i, j in zip(first, second, strict=True)], dim=1)
    upper -= means[:, first] * means[:, second]
    whole = upper.new_empty(len(a), 2 * channels, 2 * channels, *upper.shape[2:])
    whole[:, first, second] = upper
    whole[:, second, first] = upper
    whole = whole.permute(0, 3, 4, 1, 2)
    return whole[..., :channels, :channels], whole[..., channels:, channels:], whole[..., :channels, channels:]


def _unexplained(of: torch.Tensor, by: torch.Tensor, cross: torch.Tensor, noise: float, floor: float) -> torch.Tensor:
    """Share of the variance ``of`` that neither noise nor an affine map of the other image explains: ``(B, h, w)``."""
    ridge = RIDGE + RIDGE * by.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    eye = torch.eye(by.shape[-1], dtype=by.dtype, device=by.device)
    slope = torch.linalg.solve(by + ridge * eye, cross.transpose(-1, -2))
    variance = of.diagonal(dim1=-2, dim2=-1).sum(-1)
    left = (variance - (cross * slope.transpose(-1, -2)).sum((-1, -2)) - noise).clamp(min=0)
    return left / (variance + floor)


def unexplained(
    source: torch.Tensor, stylized: torch.Tensor, noise: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Structure that went missing, and structure that came from nowhere.

    In every window one image is predicted from the other by an affine map of its channels, so that no change of
    color, contrast or brightness counts, not even one that differs between places.

    Args:
        source: ``(B, C, H, W)``, without noise (:func:`smooth`). ``B`` are the slices of one volume, or 1: what counts
            as flat is decided for all of them together.
        stylized: the restyled image, likewise.
        noise: the stylized image's :func:`noise_variance` before it was blurred; None takes it for free of noise.

    Returns:
        Share of the source's variance that the stylized image does not explain, and the other way round: two maps
        ``(B, h, w)`` in [0, 1].
    """
    (source, _), (stylized, scale) = (_standardized(image) for image in (source, stylized))
    channels, noisy = source.shape[1], (noise or 0.0) / scale**2
    floor = SMOOTH * channels + NOISE_FLOOR * noisy
    lost, invented = [], []
    for a, b in zip(source.split(SLICES), stylized.split(SLICES), strict=True):
        within_a, within_b, cross = _covariances(a, b)
        lost.append(_unexplained(within_a, within_b, cross, 0.0, FLAT * channels))
        invented.append(_unexplained(within_b, within_a, cross.transpose(-1, -2), NOISE_LEFT * noisy, floor))
    return torch.cat(lost), torch.cat(invented)


def _standardized(images: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Channels around 0, and 1 for their mean variance: dim images are judged as bright ones are. And the divisor."""
    centered = images - images.mean(dim=(0, 2, 3), keepdim=True)
    scale = max(float(centered.square().mean().sqrt()), 1e-4)
    return centered / scale, scale
