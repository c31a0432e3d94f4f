from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.moments import MomentMap
from nnunet_osasis.maps.parametric import ParametricMap


@dataclass(frozen=True)
class ColorMap:
    """An affine map of channel values: ``y_o = sum_i matrix[o][i] x_i + offset[o]``, in [-1, 1].

    The form of stylizer folders of format 1; new maps are fitted as ``parametric_map.ParametricMap``.
    """

    matrix: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]

    @classmethod
    def mean(cls, maps: list[ColorMap]) -> ColorMap:
        """The average map (affine maps form a vector space)."""
        matrix = torch.tensor([m.matrix for m in maps], dtype=torch.float64).mean(0)
        offset = torch.tensor([m.offset for m in maps], dtype=torch.float64).mean(0)
        return cls(tuple(tuple(row) for row in matrix.tolist()), tuple(offset.tolist()))

    def to_json(self) -> dict[str, Any]:
        """JSON form; ``from_json`` reads it."""
        return {"matrix": self.matrix, "offset": self.offset}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ColorMap:
        """Back from ``to_json``. Raises ``KeyError`` or ``TypeError`` for anything else."""
        return cls(tuple(tuple(row) for row in values["matrix"]), tuple(values["offset"]))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Apply to ``(B, C, H, W)``; not clipped."""
        matrix = torch.tensor(self.matrix, dtype=torch.float64).to(images)
        offset = torch.tensor(self.offset, dtype=torch.float64).to(images)
        return torch.einsum("oi,bihw->bohw", matrix, images) + offset[None, :, None, None]


class PixelMap(Protocol):
    """A map of channel values: no pixel moves, no neighbour matters."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """``(B, C, H, W)`` in [-1, 1] to the same shape, not clipped."""
        ...

    def to_json(self) -> dict[str, Any]:
        """JSON form; ``map_from_json`` reads it."""
        ...


@dataclass(frozen=True)
class MeanMap:
    """``x + confidence * mean_k(f_k(x) - x)``: the average change, held back as far as the estimates disagree."""

    maps: tuple[PixelMap, ...]
    confidence: float = 1.0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        change = torch.stack([one(images).clamp(-1, 1) - images for one in self.maps]).mean(dim=0)
        return images + self.confidence * change

    def to_json(self) -> dict[str, Any]:
        """JSON form; ``map_from_json`` reads it."""
        return {"mean_of": [one.to_json() for one in self.maps], "confidence": self.confidence}


def map_from_json(values: dict[str, Any]) -> PixelMap:
    """Any of the maps from its JSON form. Raises ``KeyError``, ``TypeError`` or ``OsasisError`` for anything else."""
    if "mean_of" in values:
        confidence = float(values["confidence"])
        if not 0 <= confidence <= 1 or not values["mean_of"]:
            raise OsasisError("A mean of maps needs maps and a confidence in [0, 1]", found=confidence)
        return MeanMap(tuple(map_from_json(one) for one in values["mean_of"]), confidence)
    if "coefficients" in values:
        return ParametricMap.from_json(values)
    return MomentMap.from_json(values) if "source_mean" in values else ColorMap.from_json(values)


def blend(images: torch.Tensor, changed: torch.Tensor, strength: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
    """Mix images with their restyled versions: the one place where strength acts, and where values are clipped.

    Args:
        images: ``(B, C, H, W)`` in [-1, 1].
        changed: the same images at full strength, ``(B, C, H, W)``, not clipped.
        strength: ``(B,)`` in [0, 1].
        view: bool ``(B, 1, H, W)``; outside it the images stay as they are, bit for bit.

    Returns:
        ``(B, C, H, W)`` in [-1, 1] inside the view; bit for bit the image where its strength is 0.
    """
    weight = strength.to(images)[:, None, None, None]
    mixed = torch.lerp(images, changed, weight).clamp(-1, 1)
    return torch.where(view & (weight != 0), mixed, images)
