"""Sharpness and noise, which a map of values cannot carry over, measured at the images' own size."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional as F

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.field_of_view import own_view

SHARPEST, SOFTEST = 1.5, -1.0
"""Largest and smallest amount of the unsharp mask; -1 is the plain 3 x 3 binomial blur."""

RESPONSE = 0.7
"""Share of the finest band that the mask acts on (measured on natural images: 0.6 to 0.8)."""

MIN_SIDE_PX = 16
"""Side in pixels below which an image says nothing about detail."""

MIN_PIXELS_IN_VIEW = 64
"""Number of pixels, away from the frame, below which an image says nothing about detail."""

FLAT = 1e-8
"""Energy of a band (in [-1, 1] units squared) below which there is no structure to be sharp or soft."""

MIN_NOISE = 1e-3
"""Standard deviation in [-1, 1] units below which no noise is added."""

_NOISE_KERNEL = ((1.0, -2.0, 1.0), (-2.0, 4.0, -2.0), (1.0, -2.0, 1.0))
"""Difference of two Laplacians, which leaves noise and little structure (Immerkaer 1996)."""

_NOISE_IN_BAND = 0.640625
"""Variance that white noise of variance 1 leaves in ``x - G x``."""


@dataclass(frozen=True)
class DetailStatistics:
    """Sharpness and noise of one image.

    Attributes:
        sharpness: log ratio of the two finest bands' amplitudes, noise taken out; contrast does not change it.
        noise: standard deviation in [-1, 1] units (Immerkaer's estimate).
    """

    sharpness: float
    noise: float

    @classmethod
    def of(cls, image: torch.Tensor) -> DetailStatistics | None:
        """Measure ``(1, C, H, W)`` in [-1, 1] at its own size; None if little is in view, or all is flat."""
        if min(image.shape[-2:]) < MIN_SIDE_PX:
            return None
        view = own_view(image).float()
        inside = F.max_pool2d(1 - view, 9, stride=1, padding=4)[:, 0] == 0  # away from the frame's edge
        if int(inside.sum()) < MIN_PIXELS_IN_VIEW:
            return None
        gray = image.mean(dim=1, keepdim=True)
        once = torch.tensor([-1.0])
        smooth = sharpen(gray, once)
        smoother = sharpen(sharpen(smooth, once), once)
        laplacian = F.conv2d(F.pad(gray, (1, 1, 1, 1), mode="reflect"), torch.tensor(_NOISE_KERNEL)[None, None])
        noise = float(laplacian[:, 0][inside].abs().mean()) * math.sqrt(math.pi / 2) / 6
        fine, coarse = ((a - b)[:, 0][inside].square().mean() for a, b in ((gray, smooth), (smooth, smoother)))
        if float(coarse) < FLAT:
            return None
        signal = max(float(fine) - _NOISE_IN_BAND * noise**2, 0.05 * float(fine))
        return cls(0.5 * math.log((signal + 1e-10) / (float(coarse) + 1e-10)), noise)


@dataclass(frozen=True)
class DetailChange:
    """A change of sharpness and noise.

    Attributes:
        sharpness: amount of unsharp masking; negative blurs.
        noise: standard deviation of added noise in [-1, 1] units.

    >>> DetailChange(sharpness=1.0)(torch.zeros(1, 1, 4, 4)).abs().max().item()
    0.0
    """

    sharpness: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not (SOFTEST <= self.sharpness <= SHARPEST and 0 <= self.noise <= 1):
            raise OsasisError("A change of detail must lie in its limits", found=self)

    @classmethod
    def between(cls, sources: Sequence[DetailStatistics], references: Sequence[DetailStatistics]) -> DetailChange:
        """Return the change from the sources' detail to the references', as far as it exceeds the sources' own spread.

        Scenes differ in detail too: only a difference beyond one standard deviation of the source images counts, and
        only noise beyond what 95 % of them have. No change when either list is empty.
        """
        if not sources or not references:
            return cls()
        own = torch.tensor([source.sharpness for source in sources])
        spread = float(own.std()) if len(own) > 1 else 0.0
        apart = sum(reference.sharpness for reference in references) / len(references) - float(own.mean())
        beyond = math.copysign(max(0.0, abs(apart) - spread), apart)
        amount = min(SHARPEST, max(SOFTEST, (math.exp(beyond) - 1) / RESPONSE))
        usual = float(torch.quantile(torch.tensor([source.noise for source in sources]), 0.95))
        seen = sum(reference.noise for reference in references) / len(references)
        added = math.sqrt(max(0.0, seen**2 - usual**2))
        return cls(round(amount, 6), round(added, 6) if added >= MIN_NOISE else 0.0)

    def __call__(
        self, images: torch.Tensor, *, view: torch.Tensor | None = None, drawn_from: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Apply to ``(B, C, H, W)`` in [-1, 1]; clipped.

        Args:
            images: ``(B, C, H, W)`` in [-1, 1].
            view: field of view ``(B, 1, H, W)``; nothing outside it reaches into it (no fringe along a frame).
            drawn_from: images ``(B, C, H, W)`` whose content seeds the noise, so that equal ones get equal noise, alone
                or in a batch: those before restyling, whose bits are the same on every machine. None takes ``images``.
        """
        result = images
        if self.sharpness:
            result = images + self.sharpness * (images - _smooth_inside(images, view))
        if self.noise:
            seeds = images if drawn_from is None else drawn_from
            result = result + self.noise * torch.cat([_noise_of(image) for image in seeds.split(1)]).to(images)
        return result.clamp(-1, 1)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which ``DetailChange(**values)`` reads."""
        return asdict(self)


def _smooth_inside(images: torch.Tensor, view: torch.Tensor | None) -> torch.Tensor:
    """The binomial blur, taken over pixels in view alone."""
    once = torch.full((len(images),), -1.0).to(images)
    if view is None:
        return sharpen(images, once)
    inside = view.to(images)
    weight = sharpen(inside, once)
    return torch.where(view, sharpen(images * inside, once) / weight.clamp(min=1e-6), images)


def _noise_of(image: torch.Tensor) -> torch.Tensor:
    levels = ((image.detach().cpu() + 1) * 127.5).round().to(torch.uint8)  # last bits differ between devices
    generator = torch.Generator().manual_seed(zlib.crc32(levels.contiguous().numpy().tobytes()))
    return torch.randn(image.shape, generator=generator).to(image)


def sharpen(images: torch.Tensor, amount: torch.Tensor) -> torch.Tensor:
    """Compute ``x + amount (x - G x)``, a 3 x 3 binomial ``G``; ``amount`` ``(B,)``, negative blurs, -1 is ``G x``."""
    line = torch.tensor([0.25, 0.5, 0.25]).to(images)
    channels = images.shape[1]
    kernel = (line[:, None] * line)[None, None].expand(channels, 1, 3, 3)
    smooth = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), kernel, groups=channels)
    return images + amount.view(-1, 1, 1, 1) * (images - smooth)
