"""Colour cameras, in display space."""

from __future__ import annotations

import torch

from nnunet_osasis.acquisition.base import Parameters, register, tone_curve, uniform
from nnunet_osasis.maps.detail import sharpen

PIECES = 5  # of a tone curve


@register("camera")
class CameraFamily:
    """Channel mixing (cross-talk, saturation, hue), gains, vignette, monotone tone curves, black level; blur or
    sharpening and noise on top.

    Everything happens in display values, with free curves: neither the gamma nor the S-shape of any real camera is
    built in. At strength 1 the mean colour difference to the source is about 20 (CIEDE2000) on colonoscopy.
    """

    terms = ("quadratic", "radial")

    def sample(self, count: int, channels: int, generator: torch.Generator, strength: float = 1.0) -> Parameters:
        """See ``AcquisitionFamily``."""

        def normal(*shape: int) -> torch.Tensor:
            return strength * torch.randn(count, *shape, generator=generator)

        eye = torch.eye(channels)
        grey = uniform(count, -0.1, 0.4, generator, 1, 1) * strength  # towards grey, or a little beyond the colour
        walk = (normal(1, PIECES) * 0.35).cumsum(-1) * 0.6  # one bend for all channels, and a little of its own
        return {
            "gain": torch.exp(normal(channels, 1) * 0.22 + normal(1, 1) * 0.18),
            "mix": eye + normal(channels, channels) * 0.06 + grey * (1 / channels - eye),
            "slopes": torch.exp(walk + normal(1, PIECES) * 0.15 + normal(channels, PIECES) * 0.08),
            "black": normal(channels, 1) * 0.02 + normal(1, 1) * 0.02,
            "vignette": uniform(count, -0.05, 0.4, generator, 1, 1) * strength,
            "sharpness": uniform(count, -1.0, 1.5, generator) * min(strength, 1.0),
            "noise": uniform(count, 0.0, 0.04, generator) * min(strength, 1.0),
        }

    def show(self, values: torch.Tensor, where: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """See ``AcquisitionFamily``."""
        light = parameters["mix"] @ ((values + 1) / 2) * parameters["gain"]
        light = light * (1 - parameters["vignette"] * where[:, :1].to(values))
        return (tone_curve(light, parameters["slopes"]) + parameters["black"]).clamp(0, 1) * 2 - 1

    def degrade(self, images: torch.Tensor, parameters: Parameters, generator: torch.Generator) -> torch.Tensor:
        """See ``AcquisitionFamily``."""
        noise = torch.randn(images.shape, generator=generator) * parameters["noise"].view(-1, 1, 1, 1)
        return (sharpen(images, parameters["sharpness"]) + noise).clamp(-1, 1)
