"""What all color maps share: the module they derive from, their JSON form, their mean, and the blend at a strength."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from torch import nn

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.bands import Band
from nnunet_osasis.maps.field_of_view import Frame

MAPS: dict[str, type[PixelMap]] = {}
"""Classes of maps by the JSON key that only this class writes; importing ``nnunet_osasis.maps`` fills it."""


class PixelMap(nn.Module, ABC):
    """A map of channel values: no pixel moves, no neighbor matters. Its numbers are float32 buffers.

    A subclass names the key of its JSON form that no other map has: ``class MyMap(PixelMap, key="my_numbers")``.
    Two maps are equal when their ``to_json()`` are.
    """

    def __init_subclass__(cls, *, key: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        MAPS[key] = cls

    @abstractmethod
    def forward(self, images: torch.Tensor, band: Band | None = None) -> torch.Tensor:
        """Map ``(B, C, H, W)`` in [-1, 1], on any device, to a new tensor of the same shape; not clipped.

        With ``band`` the images are that part of larger ones, and get what it gets there, bit for bit.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which ``map_from_json`` reads."""

    @classmethod
    @abstractmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Read ``to_json``. Raises ``KeyError``, ``TypeError`` or ``OsasisError`` for anything else."""


def map_from_json(values: dict[str, Any]) -> PixelMap:
    """Read any map. Raises ``KeyError``, ``TypeError`` or ``OsasisError`` for what no map has written."""
    for key, kind in MAPS.items():
        if key in values:
            return kind.from_json(values)
    raise OsasisError("A map must be of a known kind", found=list(values), remedy=f"Known: {list(MAPS)}.")


def numbers_of(buffer: torch.Tensor) -> list:
    """Return a float32 buffer as nested lists of the shortest decimals that read back to the same bits."""
    return buffer.cpu().numpy().astype(str).astype(float).tolist()


class MeanMap(PixelMap, key="mean_of"):
    """The average change of several maps: ``x + confidence * mean_k(f_k(x) - x)``.

    Args:
        maps: the maps ``f_k``, each clipped to [-1, 1] before the mean.
        confidence: factor in [0, 1] that shrinks the change as far as the maps disagree.
    """

    def __init__(self, maps: Iterable[PixelMap], confidence: float = 1.0) -> None:
        super().__init__()
        self.maps: Sequence[PixelMap] = nn.ModuleList(maps)  # type: ignore[assignment]  # torch's list of modules
        self.confidence = float(confidence)
        if not 0 <= self.confidence <= 1 or not len(self.maps):
            raise OsasisError("A mean of maps needs maps and a confidence in [0, 1]", found=confidence)

    def forward(self, images: torch.Tensor, band: Band | None = None) -> torch.Tensor:
        total = torch.zeros_like(images)
        for part in self.maps:
            total.add_(part(images, band).clamp_(-1, 1).sub_(images))
        return total.mul_(self.confidence / len(self.maps)).add_(images)

    def to_json(self) -> dict[str, Any]:
        return {"mean_of": [part.to_json() for part in self.maps], "confidence": self.confidence}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        return cls([map_from_json(part) for part in values["mean_of"]], float(values["confidence"]))


def blend(
    images: torch.Tensor, changed: torch.Tensor, strength: torch.Tensor, frame: Frame | None = None
) -> torch.Tensor:
    """Mix images with their restyled versions: the one place where strength acts, and where values are clipped.

    Args:
        images: ``(B, C, H, W)`` in [-1, 1].
        changed: the same images at full strength, ``(B, C, H, W)``, not clipped.
        strength: ``(B,)`` in [0, 1].
        frame: what is no darker stays as it is, bit for bit, and what is little brighter changes little.

    Returns:
        ``(B, C, H, W)`` in [-1, 1]; bit for bit the image where its strength is 0.
    """
    weight = strength.to(images)[:, None, None, None]
    if frame is not None:
        changed = frame.hold(images, changed)
    mixed = torch.lerp(images, changed, weight).clamp_(-1, 1)
    return torch.where(weight != 0, mixed, images)
