"""Scanners of one channel or several independent ones: MR sequences, CT, ultrasound."""

from __future__ import annotations

import math

import torch

from nnunet_osasis.acquisition.base import Parameters, register, tone_curve, uniform
from nnunet_osasis.maps.detail import sharpen

PIECES = 6


@register("scanner")
class ScannerFamily:
    """A gamma and a monotone contrast curve for every channel, window and level, smooth shading (coil bias, depth
    gain), resolution and Rician noise.

    Channels are treated alike and never mixed: each is a sequence of its own.
    """

    terms = ("tone", "radial", "field")

    def sample(self, count: int, channels: int, generator: torch.Generator, strength: float = 1.0) -> Parameters:
        """See ``AcquisitionFamily``."""

        def normal(*shape: int) -> torch.Tensor:
            return strength * torch.randn(count, *shape, generator=generator)

        return {
            "gamma": torch.exp(normal(channels, 1) * 0.3),
            "slopes": torch.exp((normal(channels, PIECES) * 0.35).cumsum(-1) * 0.6),
            "gain": torch.exp(normal(channels, 1) * 0.15),
            "level": normal(channels, 1) * 0.04,
            "slope": normal(2, 1) * 0.12,
            "bowl": normal(1, 1) * 0.12,
            "sharpness": uniform(count, -1.0, 0.5, generator) * min(strength, 1.0),
            "noise": uniform(count, 0.0, 0.04, generator) * min(strength, 1.0),
        }

    def show(self, values: torch.Tensor, where: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """See ``AcquisitionFamily``."""
        signal = ((values + 1) / 2).clamp(1e-4, 1) ** parameters["gamma"]
        signal = tone_curve(signal, parameters["slopes"]) * parameters["gain"] + parameters["level"]
        radius, columns, rows = where.to(values).unbind(dim=1)
        slope_x, slope_y = parameters["slope"].unbind(dim=1)
        shading = 1 + slope_x * columns + slope_y * rows + parameters["bowl"][:, 0] * (radius - 0.5)
        return (signal * shading[:, None].clamp(min=0.2)).clamp(0, 1) * 2 - 1

    def degrade(self, images: torch.Tensor, parameters: Parameters, generator: torch.Generator) -> torch.Tensor:
        """See ``AcquisitionFamily``. Noise is the modulus of a complex one, in [0, 1] units."""
        signal = (sharpen(images, parameters["sharpness"]).clamp(-1, 1) + 1) / 2
        deviation = parameters["noise"].view(-1, 1, 1, 1) / math.sqrt(2)
        real, imaginary = (torch.randn(images.shape, generator=generator) * deviation for _ in range(2))
        return ((signal + real).square() + imaginary.square()).sqrt().clamp(0, 1) * 2 - 1
