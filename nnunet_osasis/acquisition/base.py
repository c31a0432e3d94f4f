"""What an acquisition family is, the families there are, and the pieces they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from nnunet_osasis.errors import OsasisError

Parameters = dict[str, torch.Tensor]
"""Of ``B`` acquisitions, by name; each tensor has ``B`` rows."""


class AcquisitionFamily(Protocol):
    """Draws random acquisitions and shows images as they would.

    ``show`` is a map of values and places (what a read-out can undo); ``degrade`` adds what it cannot: blur,
    sharpening, noise. No method moves a pixel. Register one with :func:`register`; the calibrator finds it by name.
    """

    terms: tuple[str, ...]
    """Terms of ``ParametricMap`` that describe the family well."""

    def sample(self, count: int, channels: int, generator: torch.Generator, strength: float = 1.0) -> Parameters:
        """``count`` acquisitions; ``strength`` scales how far they are from the identity."""
        ...

    def show(self, values: torch.Tensor, where: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        """Pixels ``(B, C, N)`` in [-1, 1] at ``places`` ``(B or 1, 3, N)`` to what is shown, ``(B, C, N)``."""
        ...

    def degrade(self, images: torch.Tensor, parameters: Parameters, generator: torch.Generator) -> torch.Tensor:
        """Shown images ``(B, C, H, W)`` with the acquisition's resolution and noise."""
        ...


FAMILIES: dict[str, Callable[[], AcquisitionFamily]] = {}


def register(name: str) -> Callable[[type], type]:
    """Class decorator: make a family known under a name, for ``CalibratorConfig.family``.

    Raises ``OsasisError`` for a name that is taken.
    """

    def add(family: type) -> type:
        if name in FAMILIES:
            raise OsasisError("A family of acquisitions needs a name of its own", found=name)
        FAMILIES[name] = family
        return family

    return add


def family_for(name: str, channels: int) -> AcquisitionFamily:
    """The family of a name; ``auto`` takes cameras for three channels and scanners for all others.

    Raises ``OsasisError`` naming the families there are.
    """
    if name == "auto":
        name = "camera" if channels == 3 else "scanner"
    if name not in FAMILIES:
        raise OsasisError(
            "The family of acquisitions must be known", found=name, remedy=f"Use auto or one of {sorted(FAMILIES)}."
        )
    return FAMILIES[name]()


def uniform(count: int, low: float, high: float, generator: torch.Generator, *shape: int) -> torch.Tensor:
    """``(count, *shape)`` between two numbers."""
    return low + (high - low) * torch.rand(count, *shape, generator=generator)


def tone_curve(light: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """A rising curve through (0, 0) and (1, 1), piecewise linear.

    Args:
        light: ``(B, C, N)``, clipped to [0, 1]. slopes: positive, ``(B, C, K)``, of K equal pieces, any scale.
    """
    pieces = slopes.shape[-1]
    heights = (slopes / slopes.mean(dim=-1, keepdim=True)).cumsum(dim=-1) / pieces
    knots = torch.cat([torch.zeros_like(heights[..., :1]), heights], dim=-1)
    place = light.clamp(0, 1) * pieces
    index = place.floor().clamp(max=pieces - 1).long()
    left, right = knots.gather(2, index), knots.gather(2, index + 1)
    return left + (right - left) * (place - index)
