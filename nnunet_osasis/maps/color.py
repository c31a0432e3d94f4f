"""CIELAB (D65) in torch: on any device, inside exported networks, and with gradients."""

from __future__ import annotations

import torch

_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))

_WHITE = ((0.95047,), (1.0,), (1.08883,))

TO_XYZ = torch.tensor(_TO_XYZ) / torch.tensor(_WHITE)
"""Linear sRGB to XYZ relative to the white point D65, ``(3, 3)``."""

FROM_XYZ = torch.linalg.inv(
    torch.tensor(_TO_XYZ, dtype=torch.float64) / torch.tensor(_WHITE, dtype=torch.float64)
).float()
"""The inverse of ``TO_XYZ``, ``(3, 3)``."""

GRAY_SCALE = 50.0
"""Factor of images without color: half the lightness range, so that black to white (2 units) is 100 as in CIELAB."""


def perceptual(values: torch.Tensor, to_xyz: torch.Tensor = TO_XYZ) -> torch.Tensor:
    """Convert pixels to the space distances are taken in: CIELAB for three channels, values times 50 otherwise.

    Differentiable; equal to ``skimage.color.rgb2lab`` within 1e-3.

    Args:
        values: ``(B, C, ...)`` in [-1, 1]; colors beyond are clipped.
        to_xyz: ``TO_XYZ``, on the device of the values where a copy has to be avoided.
    """
    if values.shape[1] != 3:
        return values * GRAY_SCALE
    v = values.clamp(-1, 1).add_(1).div_(2)
    # the clamps inside keep the gradients of the branch not taken finite
    bent = _power_(v.clamp(min=0.04).add_(0.055).div_(1.055), 2.4)
    xyz = _mix(to_xyz, torch.where(v <= 0.04045, v / 12.92, bent))
    f = torch.where(xyz > 0.008856, _power_(xyz.clamp(min=0.008), 1 / 3), (7.787 * xyz).add_(16 / 116))
    x, y, z = f.split(1, dim=1)
    return torch.cat([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def from_perceptual(values: torch.Tensor, from_xyz: torch.Tensor = FROM_XYZ) -> torch.Tensor:
    """Invert ``perceptual``: ``(B, C, ...)`` to [-1, 1]; colors outside sRGB are clipped."""
    if values.shape[1] != 3:
        return values.div(GRAY_SCALE).clamp_(-1, 1)
    lightness, a, b = values.split(1, dim=1)
    y = (lightness + 16) / 116
    f = torch.cat([y + a / 500, y, y - b / 200], dim=1)
    light = _mix(from_xyz, torch.where(f > 0.2068966, f.pow(3), (f - 16 / 116).div_(7.787))).clamp_(0, 1)
    bent = _power_(light.clamp(min=1e-3), 1 / 2.4).mul_(1.055).sub_(0.055)
    return torch.where(light <= 0.0031308, light * 12.92, bent).clamp_(0, 1).mul_(2).sub_(1)


def difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the distance of pixels ``(B, C, N)`` in ``perceptual`` space, ``(B, N)``: CIE76, about 2 is visible."""
    return (perceptual(a) - perceptual(b)).square().sum(dim=1).add(1e-12).sqrt()


def _power_(values: torch.Tensor, exponent: float) -> torch.Tensor:
    """Raise positive values to a power, in place.

    ``pow`` has other last bits at the end of a tensor: a picture would depend on how it is cut into bands.
    """
    return values.log_().mul_(exponent).exp_()


def _mix(matrix: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Apply ``(3, 3)`` to the channels of ``(B, 3, ...)`` by sums of products, which autocast leaves in float32."""
    columns = matrix.to(values).view(3, 3, *(1,) * (values.ndim - 2)).unbind(1)
    first, second, third = values.split(1, dim=1)
    return (columns[0] * first).addcmul_(columns[1], second).addcmul_(columns[2], third)
