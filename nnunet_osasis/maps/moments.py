"""Moment matching as a map: pooled Reinhard, the estimate that blames every difference on the camera."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.color import from_perceptual, perceptual
from nnunet_osasis.maps.field_of_view import field_of_view

MOST = 4_000_000
"""Pixels that are enough for a mean; of more, evenly spaced ones are taken."""

ANCHOR = 0.25
"""Share of black pixels mixed into both sides by default: nearest to the truth in development, on either set."""

Moments = tuple[tuple[float, ...], tuple[float, ...]]


def moments(images: torch.Tensor, anchor: float = ANCHOR) -> Moments:
    """Mean and deviation per channel of ``color_space.perceptual`` over all pixels in view of ``(B, C, H, W)``.

    ``anchor``: share of black pixels mixed in.
    """
    parts = []
    step = max(1, images[:, 0].numel() // MOST)
    for some in images.cpu().split(64):  # thousands of large images are no more than a few at once
        seen = some.flatten(2).movedim(1, 0)[:, field_of_view(some)[:, 0].flatten(1)][:, ::step]
        parts.append(perceptual(seen[None].float())[0].double())
    pixels = torch.cat(parts, dim=1)
    black = perceptual(torch.full((1, images.shape[1], 1), -1.0))[0, :, 0].double()
    own, square = pixels.mean(dim=1), pixels.square().mean(dim=1)
    mean = (1 - anchor) * own + anchor * black
    variance = (1 - anchor) * square + anchor * black.square() - mean.square()
    return tuple(mean.tolist()), tuple(variance.clamp(min=1e-8).sqrt().tolist())


@dataclass(frozen=True)
class MomentMap:
    """Moves mean and deviation of every channel of CIELAB (three channels) or of the values themselves (otherwise)."""

    source_mean: tuple[float, ...]
    source_std: tuple[float, ...]
    target_mean: tuple[float, ...]
    target_std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len({len(v) for v in asdict(self).values()}) != 1 or not min(*self.source_std, *self.target_std) > 0:
            raise OsasisError("Moments need one mean and one positive deviation per channel", found=self)

    @classmethod
    def between(cls, sources: torch.Tensor, targets: torch.Tensor, *, anchor: float = ANCHOR) -> MomentMap:
        """From the pooled statistics of images ``(N, C, H, W)`` in [-1, 1] to those of others, frames left out.

        ``anchor``: share of black pixels mixed into both: no light is black to every camera, which one scene that shows
        no dark pixel cannot say.
        """
        return cls(*moments(sources, anchor), *moments(targets, anchor))

    def inverse(self) -> MomentMap:
        """The way back."""
        return MomentMap(self.target_mean, self.target_std, self.source_mean, self.source_std)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Apply to ``(B, C, H, W)``; colours outside the range are clipped."""

        def column(values: tuple[float, ...]) -> torch.Tensor:
            return torch.tensor(values).to(images)[None, :, None]

        scale = column(self.target_std) / column(self.source_std)
        moved = (perceptual(images.flatten(2)) - column(self.source_mean)) * scale + column(self.target_mean)
        return from_perceptual(moved).view_as(images)

    def to_json(self) -> dict[str, Any]:
        """JSON form; ``from_json`` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> MomentMap:
        """Back from ``to_json``. Raises ``TypeError`` or ``OsasisError`` for anything else."""
        return cls(**{name: tuple(float(v) for v in row) for name, row in values.items()})
