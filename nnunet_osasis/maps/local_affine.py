"""Carry a low-resolution change to an image's own grid, edge by edge.

If a stylizer works at 64 px and an image has 1024, the change is described at 64 px by one small affine color map per
neighborhood (a guided filter with a color guide, He et al. 2013), and the *maps* are upsampled, not the pixels: every
edge of the result is an edge of the original.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from nnunet_osasis.images.bands import Band, in_bands
from nnunet_osasis.maps.resize import rows_of


def _box(x: torch.Tensor, radius: int, slices: int = 0) -> torch.Tensor:
    """Average over ``(2 radius + 1)`` squares, and over ``2 slices + 1`` neighbors along the batch."""
    mean = F.avg_pool2d(x, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
    if slices:
        rows = mean.flatten(1).T[:, None]
        rows = F.avg_pool1d(rows, 2 * slices + 1, stride=1, padding=slices, count_include_pad=False)
        mean = rows[:, 0].T.reshape(mean.shape)
    return mean


def fit_local_affine(
    guide: torch.Tensor, target: torch.Tensor, *, radius: int = 2, epsilon: float = 1e-3, slices: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit affine maps ``A, b`` with ``A guide + b ~ target`` in the ``(2 radius + 1)`` square around each pixel.

    Args:
        guide: ``(B, C, h, w)`` in [-1, 1].
        target: ``(B, C, h, w)`` in [-1, 1].
        radius: of the window in pixels.
        epsilon: ridge on ``A - I``: where the guide is flat, its own detail is kept as it is.
        slices: the batch is a volume's slices and a window reaches this many to either side, so that neighboring
            slices are changed alike.

    Returns:
        ``A`` ``(B, C, C, h, w)`` (output channel first) and ``b`` ``(B, C, h, w)``, averaged over the windows
        that cover a pixel.
    """
    batch, channels, height, width = guide.shape
    delta = target - guide  # fitting the difference makes the ridge pull A to the identity
    mean_g, mean_d = _box(guide, radius, slices), _box(delta, radius, slices)

    def covariance(a: torch.Tensor, b: torch.Tensor, mean_a: torch.Tensor, mean_b: torch.Tensor) -> torch.Tensor:
        product = (a[:, :, None] * b[:, None]).flatten(1, 2)
        centered = _box(product, radius, slices) - (mean_a[:, :, None] * mean_b[:, None]).flatten(1, 2)
        return centered.unflatten(1, (channels, channels)).permute(0, 3, 4, 1, 2)

    var_g = covariance(guide, guide, mean_g, mean_g) + epsilon * torch.eye(channels).to(guide)
    cov_gd = covariance(guide, delta, mean_g, mean_d)
    slope = torch.linalg.solve(var_g, cov_gd).permute(0, 4, 3, 1, 2)  # (B, out, in, h, w)
    offset = mean_d - torch.einsum("boihw,bihw->bohw", slope, mean_g)
    slope = _box(slope.reshape(batch, -1, height, width), radius, slices).view_as(slope)
    identity = torch.eye(channels).to(guide)[None, :, :, None, None]
    return slope + identity, _box(offset, radius, slices)


def apply_local_affine(slope: torch.Tensor, offset: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Apply maps fitted at ``(h, w)`` to images ``(B, C, H, W)`` of any size; the maps are interpolated."""
    fields, (height, width) = torch.cat([slope.flatten(1, 2), offset], dim=1), images.shape[-2:]

    def change(part: torch.Tensor, band: Band) -> torch.Tensor:
        channels = part.shape[1]
        slopes, offsets = rows_of(fields[band.slices], height, width, band.rows).split([channels**2, channels], dim=1)
        return torch.einsum("boihw,bihw->bohw", slopes.unflatten(1, (channels, channels)), part) + offsets

    return in_bands(images, change)


def carry_change(
    before: torch.Tensor, after: torch.Tensor, images: torch.Tensor, *, epsilon: float = 1e-3, slices: int = 0
) -> torch.Tensor:
    """Apply to ``images`` ``(B, C, H, W)`` the change from ``before`` to ``after``, both ``(B, C, h, w)``."""
    slope, offset = fit_local_affine(before, after, epsilon=epsilon, slices=slices)
    return apply_local_affine(slope, offset, images)
