"""Colour distances that gradients flow through."""

from __future__ import annotations

import torch

_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))

_WHITE = (0.95047, 1.0, 1.08883)

GREY_SCALE = 50.0
"""Of images that are not colour: half the lightness range, so that black to white (2 units) is 100 as in CIELAB."""


def perceptual(values: torch.Tensor) -> torch.Tensor:
    """Pixels ``(B, C, N)`` in [-1, 1] to the space distances are taken in: CIELAB (D65) for three channels, values
    times 50 otherwise. Differentiable; equal to ``skimage.color.rgb2lab`` within 1e-3."""
    if values.shape[1] != 3:
        return values * GREY_SCALE
    v = (values.clamp(-1, 1) + 1) / 2
    # the clamps inside keep the gradients of the branch not taken finite
    light = torch.where(v <= 0.04045, v / 12.92, ((v.clamp(min=0.04) + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor(_TO_XYZ).to(v) / torch.tensor(_WHITE).to(v)[:, None]
    xyz = torch.einsum("oi,bin->bon", matrix, light)
    f = torch.where(xyz > 0.008856, xyz.clamp(min=0.008) ** (1 / 3), 7.787 * xyz + 16 / 116)
    return torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], dim=1)


def from_perceptual(values: torch.Tensor) -> torch.Tensor:
    """The inverse of ``perceptual``: ``(B, C, N)`` to [-1, 1]; colours outside sRGB are clipped."""
    if values.shape[1] != 3:
        return (values / GREY_SCALE).clamp(-1, 1)
    y = (values[:, 0] + 16) / 116
    f = torch.stack([y + values[:, 1] / 500, y, y - values[:, 2] / 200], dim=1)
    xyz = torch.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787)
    matrix = torch.tensor(_TO_XYZ, dtype=torch.float64) / torch.tensor(_WHITE, dtype=torch.float64)[:, None]
    light = torch.einsum("oi,bin->bon", torch.linalg.inv(matrix).to(values), xyz).clamp(0, 1)
    v = torch.where(light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=1e-3) ** (1 / 2.4) - 0.055)
    return v.clamp(0, 1) * 2 - 1


def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Distance of pixels ``(B, C, N)`` in ``perceptual`` space: ``(B, N)``; CIE76 for colour, about 2 is visible."""
    return (perceptual(a) - perceptual(b)).square().sum(dim=1).add(1e-12).sqrt()
