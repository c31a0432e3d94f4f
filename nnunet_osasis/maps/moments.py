"""Moment matching as a map: pooled Reinhard, the estimate that blames every difference on the camera."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.bands import Band
from nnunet_osasis.maps.base import PixelMap, numbers_of
from nnunet_osasis.maps.color import FROM_XYZ, TO_XYZ, from_perceptual, perceptual
from nnunet_osasis.maps.field_of_view import field_of_view, find_frame

MAX_PIXELS = 4_000_000
"""Number of pixels that moments are taken over at most; of more, evenly spaced ones are taken."""

ANCHOR = 0.25
"""Default share of black pixels mixed into both sides: the value nearest to the truth in development, on either set."""

Moments = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel."""


def moments(images: torch.Tensor, anchor: float = ANCHOR) -> Moments:
    """Return mean and deviation per channel of ``maps.color.perceptual`` over all pixels in view.

    Args:
        images: one set, ``(B, C, H, W)`` in [-1, 1].
        anchor: share of black pixels mixed in.
    """
    parts, frame = [], find_frame(images)
    step = max(1, images[:, 0].numel() // MAX_PIXELS)
    for some in images.cpu().split(64):  # thousands of large images are no more than a few at once
        seen = some.flatten(2).movedim(1, 0)[:, field_of_view(some, frame)[:, 0].flatten(1)][:, ::step]
        parts.append(perceptual(seen[None].float())[0].double())
    pixels = torch.cat(parts, dim=1)
    black = perceptual(torch.full((1, images.shape[1], 1), -1.0))[0, :, 0].double()
    own, square = pixels.mean(dim=1), pixels.square().mean(dim=1)
    mean = (1 - anchor) * own + anchor * black
    variance = (1 - anchor) * square + anchor * black.square() - mean.square()
    return tuple(mean.tolist()), tuple(variance.clamp(min=1e-8).sqrt().tolist())


class MomentMap(PixelMap, key="source_mean"):
    """Moves mean and deviation of every channel of CIELAB (three channels) or of the values themselves (otherwise).

    Colors outside the range are clipped.

    Args:
        source_mean: mean per channel before, in units of ``maps.color.perceptual``.
        source_std: deviation per channel before, above 0.
        target_mean: mean per channel after.
        target_std: deviation per channel after, above 0.

    >>> MomentMap([0], [10], [5], [20])(torch.zeros(1, 1, 1, 1)).item()  # 0 becomes 5 of 50 units
    0.10000000149011612
    """

    _NAMES: ClassVar = ("source_mean", "source_std", "target_mean", "target_std")

    source_mean: torch.Tensor
    source_std: torch.Tensor
    target_mean: torch.Tensor
    target_std: torch.Tensor
    to_xyz: torch.Tensor
    from_xyz: torch.Tensor

    def __init__(
        self,
        source_mean: Sequence[float],
        source_std: Sequence[float],
        target_mean: Sequence[float],
        target_std: Sequence[float],
    ) -> None:
        super().__init__()
        rows = (source_mean, source_std, target_mean, target_std)
        if len({len(row) for row in rows}) != 1 or not min(*source_std, *target_std) > 0:
            raise OsasisError("Moments need one mean and one positive deviation per channel", found=rows)
        for name, row in zip(self._NAMES, rows, strict=True):
            self.register_buffer(name, torch.tensor(row, dtype=torch.float32))
        self.register_buffer("to_xyz", TO_XYZ.clone(), persistent=False)
        self.register_buffer("from_xyz", FROM_XYZ.clone(), persistent=False)

    @classmethod
    def between(cls, sources: torch.Tensor, targets: torch.Tensor, *, anchor: float = ANCHOR) -> MomentMap:
        """Map the pooled statistics of images to those of others, frames left out.

        Args:
            sources: ``(N, C, H, W)`` in [-1, 1].
            targets: ``(M, C, H, W)`` in [-1, 1].
            anchor: share of black pixels mixed into both: no light is black to every camera, which one scene that
                shows no dark pixel cannot say.
        """
        return cls(*moments(sources, anchor), *moments(targets, anchor))

    def inverse(self) -> MomentMap:
        """Return the map from the target's moments to the source's."""
        there = self.to_json()
        return MomentMap(there["target_mean"], there["target_std"], there["source_mean"], there["source_std"])

    def forward(self, images: torch.Tensor, band: Band | None = None) -> torch.Tensor:
        mean, std, new_mean, new_std = (getattr(self, name).to(images)[:, None, None] for name in self._NAMES)
        values = perceptual(images, self.to_xyz)
        return from_perceptual(values.sub_(mean).mul_(new_std / std).add_(new_mean), self.from_xyz)

    def to_json(self) -> dict[str, Any]:
        return {name: numbers_of(getattr(self, name)) for name in self._NAMES}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        return cls(**{name: [float(v) for v in row] for name, row in values.items()})
