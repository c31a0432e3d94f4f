"""Random acquisition models: how another camera or scanner might have shown the same scene.

There are color cameras, in display space, and scanners of one channel or several independent ones (MR sequences, CT,
ultrasound).

>>> sorted(FAMILIES)
['camera', 'scanner']
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.detail import sharpen

Parameters = dict[str, torch.Tensor]
"""Parameters of ``B`` acquisitions, by name; each tensor has ``B`` rows."""


class AcquisitionFamily(Protocol):
    """Draws random acquisitions and renders images as they would.

    ``show`` is a map of values and places, which a read-out can undo; ``degrade`` adds blur, sharpening and noise,
    which it cannot undo. No method moves a pixel. Register a class with :func:`register` for the calibrator to find it.
    """

    terms: tuple[str, ...]
    """Terms of ``ParametricMap`` that describe the family well."""

    def sample(self, count: int, channels: int, generator: torch.Generator, strength: float = 1.0) -> Parameters:
        """Draw ``count`` acquisitions; ``strength`` scales how far they are from the identity."""
        ...

    def show(self, values: torch.Tensor, where: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """Map pixels ``(B, C, N)`` in [-1, 1] at ``places`` ``(B or 1, 3, N)`` to the values shown, ``(B, C, N)``."""
        ...

    def degrade(self, images: torch.Tensor, parameters: Parameters, generator: torch.Generator) -> torch.Tensor:
        """Add the acquisition's resolution and noise to shown images ``(B, C, H, W)``."""
        ...


FAMILIES: dict[str, Callable[[], AcquisitionFamily]] = {}
"""Classes of families by name; :func:`register` adds to it."""


def register(name: str) -> Callable[[type], type]:
    """Register the decorated class under a name, for ``CalibratorConfig.family``.

    Raises ``OsasisError`` for a name that is taken.
    """

    def add(family: type) -> type:
        if name in FAMILIES:
            raise OsasisError("A family of acquisitions needs a name of its own", found=name)
        FAMILIES[name] = family
        return family

    return add


def family_for(name: str, channels: int) -> AcquisitionFamily:
    """Make the family of a name; ``auto`` takes cameras for three channels and scanners for all others.

    Raises ``OsasisError`` for an unknown name, listing the known ones.
    """
    if name == "auto":
        name = "camera" if channels == 3 else "scanner"
    if name not in FAMILIES:
        raise OsasisError(
            "The family of acquisitions must be known", found=name, remedy=f"Use auto or one of {sorted(FAMILIES)}."
        )
    return FAMILIES[name]()


def uniform(count: int, low: float, high: float, generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Draw ``(count, *shape)`` between two numbers."""
    return low + (high - low) * torch.rand(count, *shape, generator=generator)


def tone_curve(light: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Apply a rising curve through (0, 0) and (1, 1), piecewise linear.

    Args:
        light: ``(B, C, N)``, clipped to [0, 1].
        slopes: slopes of K equal pieces, positive, ``(B, C, K)``, any scale.
    """
    pieces = slopes.shape[-1]
    heights = (slopes / slopes.mean(dim=-1, keepdim=True)).cumsum(dim=-1) / pieces
    knots = torch.cat([torch.zeros_like(heights[..., :1]), heights], dim=-1)
    place = light.clamp(0, 1) * pieces
    index = place.floor().clamp(max=pieces - 1).long()
    left, right = knots.gather(2, index), knots.gather(2, index + 1)
    return left + (right - left) * (place - index)


CAMERA_PIECES = 5
"""Number of linear pieces of a camera's tone curve."""


@register("camera")
class CameraFamily:
    """Channel mixing (cross-talk, saturation, hue), gains, vignette, monotone tone curves, black level; blur or
    sharpening and noise on top.

    Everything happens in display values, with free curves: neither the gamma nor the S-shape of any real camera is
    built in. At strength 1 the mean color difference to the source is about 20 (CIEDE2000) on colonoscopy.
    """

    terms = ("quadratic", "radial")

    def sample(self, count: int, channels: int, generator: torch.Generator, strength: float = 1.0) -> Parameters:
        """Draw acquisitions, see ``AcquisitionFamily``."""

        def normal(*shape: int) -> torch.Tensor:
            return strength * torch.randn(count, *shape, generator=generator)

        eye = torch.eye(channels)
        gray = uniform(count, -0.1, 0.4, generator, 1, 1) * strength  # towards gray, or a little beyond the color
        walk = (normal(1, CAMERA_PIECES) * 0.35).cumsum(-1) * 0.6  # one bend for all channels, and a little of its own
        return {
            "gain": torch.exp(normal(channels, 1) * 0.22 + normal(1, 1) * 0.18),
            "mix": eye + normal(channels, channels) * 0.06 + gray * (1 / channels - eye),
            "slopes": torch.exp(walk + normal(1, CAMERA_PIECES) * 0.15 + normal(channels, CAMERA_PIECES) * 0.08),
            "black": normal(channels, 1) * 0.02 + normal(1, 1) * 0.02,
            "vignette": uniform(count, -0.05, 0.4, generator, 1, 1) * strength,
            "sharpness": uniform(count, -1.0, 1.5, generator) * min(strength, 1.0),
            "noise": uniform(count, 0.0, 0.04, generator) * min(strength, 1.0),
        }

    def show(self, values: torch.Tensor, where: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """Map pixels, see ``AcquisitionFamily``."""
        light = parameters["mix"] @ ((values + 1) / 2) * parameters["gain"]
        light = light * (1 - parameters["vignette"] * where[:, :1].to(values))
        return (tone_curve(light, parameters["slopes"]) + parameters["black"]).clamp(0, 1) * 2 - 1

    def degrade(self, images: torch.Tensor, parameters: Parameters, generator: torch.Generator) -> torch.Tensor:
        """Add resolution and noise, see ``AcquisitionFamily``."""
        noise = torch.randn(images.shape, generator=generator) * parameters["noise"].view(-1, 1, 1, 1)
        return (sharpen(images, parameters["sharpness"]) + noise).clamp(-1, 1)


SCANNER_PIECES = 6
"""Number of linear pieces of a scanner's contrast curve."""


@register("scanner")
class ScannerFamily:
    """A gamma and a monotone contrast curve for every channel, window and level, smooth shading (coil bias, depth
    gain), resolution and Rician noise.

    Channels are treated alike and never mixed: each is a sequence of its own.
    """

    terms = ("tone", "radial", "field")

    def sample(self, count: int, channels: int, generator: torch.Generator, strength: float = 1.0) -> Parameters:
        """Draw acquisitions, see ``AcquisitionFamily``."""

        def normal(*shape: int) -> torch.Tensor:
            return strength * torch.randn(count, *shape, generator=generator)

        return {
            "gamma": torch.exp(normal(channels, 1) * 0.3),
            "slopes": torch.exp((normal(channels, SCANNER_PIECES) * 0.35).cumsum(-1) * 0.6),
            "gain": torch.exp(normal(channels, 1) * 0.15),
            "level": normal(channels, 1) * 0.04,
            "slope": normal(2, 1) * 0.12,
            "bowl": normal(1, 1) * 0.12,
            "sharpness": uniform(count, -1.0, 0.5, generator) * min(strength, 1.0),
            "noise": uniform(count, 0.0, 0.04, generator) * min(strength, 1.0),
        }

    def show(self, values: torch.Tensor, where: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """Map pixels, see ``AcquisitionFamily``."""
        signal = ((values + 1) / 2).clamp(1e-4, 1) ** parameters["gamma"]
        signal = tone_curve(signal, parameters["slopes"]) * parameters["gain"] + parameters["level"]
        radius, columns, rows = where.to(values).unbind(dim=1)
        slope_x, slope_y = parameters["slope"].unbind(dim=1)
        shading = 1 + slope_x * columns + slope_y * rows + parameters["bowl"][:, 0] * (radius - 0.5)
        return (signal * shading[:, None].clamp(min=0.2)).clamp(0, 1) * 2 - 1

    def degrade(self, images: torch.Tensor, parameters: Parameters, generator: torch.Generator) -> torch.Tensor:
        """Add resolution and noise, see ``AcquisitionFamily``; noise is Rician, in [0, 1] units."""
        signal = (sharpen(images, parameters["sharpness"]).clamp(-1, 1) + 1) / 2
        deviation = parameters["noise"].view(-1, 1, 1, 1) / math.sqrt(2)
        real, imaginary = (torch.randn(images.shape, generator=generator) * deviation for _ in range(2))
        return ((signal + real).square() + imaginary.square()).sqrt().clamp(0, 1) * 2 - 1
