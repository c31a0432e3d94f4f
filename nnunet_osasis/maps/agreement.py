"""Several independent estimates of one transfer become one map, and their disagreement says how far to trust it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.base import MeanMap, PixelMap
from nnunet_osasis.maps.color import difference

UNSEEN = 1e-3
"""A change below this is none (``difference`` never is exactly 0)."""


@dataclass(frozen=True)
class Agreement:
    """How far independent estimates of a transfer agree, over source images (``color_space.difference`` units).

    Attributes:
        change: root mean square of the mean estimate's change.
        disagreement: root mean square distance between an estimate and their mean, as a sample deviation.
        estimates: how many there were.
    """

    change: float
    disagreement: float
    estimates: int

    @property
    def error(self) -> float:
        """Standard error of the mean estimate, if the estimates err independently."""
        return self.disagreement / self.estimates**0.5

    @property
    def confidence(self) -> float:
        """``1 - error^2 / change^2``, at least 0: the factor that minimises the expected squared error of a mean with
        that standard error (James and Stein's shrinkage towards no change). 1 for a single estimate."""
        if self.estimates < 2 or self.disagreement < UNSEEN:
            return 1.0
        if self.change < UNSEEN:
            return 0.0
        return max(0.0, 1.0 - (self.error / self.change) ** 2)

    def to_json(self) -> dict[str, float]:
        """For the stylizer's card."""
        names = ("change", "disagreement", "estimates", "error", "confidence")
        return {name: round(float(getattr(self, name)), 4) for name in names}


def agreement(maps: Sequence[PixelMap], values: torch.Tensor, view: torch.Tensor) -> Agreement:
    """Compare estimates on source images ``(B, C, S, S)`` where ``view`` ``(B, 1, S, S)`` holds."""
    keep = view[:, 0].flatten(1)
    results = torch.stack([one(values).clamp(-1, 1).flatten(2) for one in maps])
    mean = results.mean(dim=0)

    def rms(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(difference(a, b)[keep].square().mean().sqrt())

    spread = sum(rms(one, mean) ** 2 for one in results) / max(1, len(maps) - 1)
    return Agreement(rms(mean, values.flatten(2)), spread**0.5, len(maps))


def combine(maps: Sequence[PixelMap], sources: torch.Tensor, view: torch.Tensor) -> tuple[MeanMap, Agreement]:
    """The plain mean of independent estimates (each counts alike), held back by their disagreement.

    Args:
        maps: estimates of one reference, or of several.
        sources: source images ``(B, C, S, S)``, the images the map is for. view: their field of view.
    """
    if not maps:
        raise OsasisError("A mean needs at least one estimate", found="none", remedy="Give at least one map.")
    found = agreement(maps, sources, view)
    return MeanMap(maps, found.confidence), found
