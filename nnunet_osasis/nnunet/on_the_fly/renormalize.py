"""nnU-Net's normalization undone and done again around a change of style, for patches on any device.

The aim is what nnU-Net would have made of the stylized image, had it been the raw one (``BatchStyle`` lists what a
patch does not know of its case). A z-score's mean and deviation are those of the whole stylized case: with ``x`` the
case, ``f`` its stylization and a strength ``w``, the image is ``x + w (f - x)`` but for values that ``f`` clips, so its
mean is linear and its variance quadratic in ``w``; their coefficients are measured once a case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.intensity import Bounds
from nnunet_osasis.nnunet.configuration import NnunetConfiguration

RGB, CT, ZSCORE, NONE = "RGBTo01Normalization", "CTNormalization", "ZScoreNormalization", "NoNormalization"

SCHEMES = (RGB, CT, ZSCORE, NONE)

MIN_DEVIATION = 1e-8
"""Smallest standard deviation that nnU-Net divides by."""

_AT_LIMIT = 1e-5
"""Distance of a normalized CT value from a limit within which nnU-Net counts as having clipped it there."""

Restyle = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Images ``(N, C, H, W)`` in [-1, 1] and strengths ``(N,)`` to images restyled at these strengths."""


@dataclass(frozen=True)
class ChannelRules:
    """How the channels of a configuration are normalized; one entry per channel everywhere.

    Attributes:
        schemes: nnU-Net's class names.
        masked: whether the channel is normalized inside the foreground and zero outside.
        offset: of ``native = normalized * scale + offset``, if that is the same for all cases.
        scale: as ``offset``.
        lower: smallest native value that can come out.
        upper: largest native value that can come out.
    """

    schemes: tuple[str, ...]
    masked: tuple[bool, ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    @classmethod
    def of(cls, setup: NnunetConfiguration) -> ChannelRules:
        """Read them from a configuration. Raises ``OsasisError`` for schemes that cannot be undone for a patch."""
        schemes = tuple(setup.manager.normalization_schemes)
        if other := sorted(set(schemes) - set(SCHEMES)):
            raise OsasisError(
                f'"on_the_fly" knows the normalizations {", ".join(SCHEMES)}',
                found=", ".join(other),
                remedy='Leave "on_the_fly" out: the cache of stylized cases is exact for every normalization.',
            )
        known = setup.plans.foreground_intensity_properties_per_channel
        rows = []
        for channel, scheme in enumerate(schemes):
            window = known[str(channel)] if scheme == CT else {}
            rows.append({
                RGB: (0.0, 255.0, 0.0, 255.0),
                CT: tuple(map(float, (
                    window.get("mean", 0), max(window.get("std", 1), MIN_DEVIATION),
                    window.get("percentile_00_5", 0), window.get("percentile_99_5", 0),
                ))),
            }.get(scheme, (0.0, 1.0, -np.inf, np.inf)))  # fmt: skip
        columns: list[tuple] = list(zip(*rows, strict=True))
        return cls(schemes, tuple(map(bool, setup.manager.use_mask_for_norm)), *columns)

    def limits(self) -> torch.Tensor:
        """Return ``lower`` and ``upper``, ``(2, C)`` float32."""
        return torch.tensor([self.lower, self.upper], dtype=torch.float32)


@dataclass(frozen=True)
class CaseNumbers:
    """Statistics of one case in one style, one entry per channel.

    Attributes:
        low: native value that the stylizer takes for -1.
        high: native value that the stylizer takes for 1.
        offset: nnU-Net's offset (mean) of the case.
        scale: nnU-Net's scale (deviation) of the case.
        offset_after: offset of the case at full strength.
        variance_after: squared scale of the case at full strength.
        covariance: of the case before and after.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    offset_after: tuple[float, ...]
    variance_after: tuple[float, ...]
    covariance: tuple[float, ...]

    @classmethod
    def measure(
        cls, rules: ChannelRules, bounds: Bounds, before: np.ndarray, after: np.ndarray, inside: np.ndarray
    ) -> CaseNumbers:
        """Measure a case.

        Args:
            rules: of the configuration.
            bounds: native values that the stylizer takes for -1 and 1.
            before: ``(C, Z, Y, X)``, native units.
            after: its stylization at full strength.
            inside: nnU-Net's foreground ``(Z, Y, X)``.
        """
        low, high = (np.broadcast_to(np.asarray(value, np.float64), len(before)) for value in bounds)
        rows = []
        for channel, scheme in enumerate(rules.schemes):
            offset, scale = rules.offset[channel], rules.scale[channel]
            row = (offset, scale, offset, scale**2, scale**2)
            if scheme == ZSCORE:
                where = inside if rules.masked[channel] else slice(None)
                x, f = (np.asarray(image[channel][where], np.float64).ravel() for image in (before, after))
                both = np.cov(x, f, bias=True)
                row = (x.mean(), max(np.sqrt(both[0, 0]), MIN_DEVIATION), f.mean(), both[1, 1], both[0, 1])
            rows.append((low[channel], high[channel], *row))
        return cls(*(tuple(map(float, column)) for column in zip(*rows, strict=True)))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which :meth:`from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Sequence[float]]) -> CaseNumbers:
        """Read :meth:`to_json`. Raises ``KeyError`` or ``TypeError`` for anything else."""
        return cls(*(tuple(map(float, values[field.name])) for field in fields(cls)))

    def as_tensor(self) -> torch.Tensor:
        """Return ``(7, C)`` float32, in the order of the attributes."""
        return torch.tensor([getattr(self, field.name) for field in fields(self)], dtype=torch.float32)


def restyle_normalized(
    patches: torch.Tensor,
    numbers: torch.Tensor,
    strength: torch.Tensor,
    rules: ChannelRules,
    limits: torch.Tensor,
    restyle: Restyle,
) -> torch.Tensor:
    """Return patches as nnU-Net would have normalized them, had their cases been stylized.

    Values that a patch does not show any more are kept: zeros outside a mask, the zeros nnU-Net pads with (of z-scores
    and CT, as no pixel of an image has that value in all channels), and CT values at the limits that nnU-Net clipped
    them to. Values that augmentation moved beyond limits keep their excess.

    Args:
        patches: ``(B, C, H, W)`` or ``(B, C, D, H, W)``, normalized.
        numbers: ``(B, 7, C)`` of :class:`CaseNumbers`.
        strength: ``(B,)`` in [0, 1]; 0 returns the patch, bit for bit.
        rules: of the configuration.
        limits: ``rules.limits()``, on the device.
        restyle: the stylizer; slices of volumes come as images.
    """
    x, trailing = patches.float(), (1,) * (patches.ndim - 2)
    low, high, offset, scale, offset_after, variance_after, covariance = (
        value.view(*value.shape, *trailing) for value in numbers.unbind(1)
    )
    w = strength.view(-1, 1, *trailing)
    lower, upper = limits.view(2, 1, -1, *trailing)
    native = x * scale + offset
    for channel in [channel for channel, masked in enumerate(rules.masked) if masked]:
        # nnU-Net's foreground is where any channel is not zero, so outside the image itself was zero.
        native[:, channel] = torch.where(x[:, channel] == 0, 0, native[:, channel])
    within = native.clamp(low, high)
    unit = _by_slice(restyle, ((within - low) * (2 / (high - low)) - 1).clamp(-1, 1), strength)
    styled = (unit + 1) * ((high - low) / 2) + low + (native - within)
    styled = torch.minimum(torch.maximum(styled, torch.minimum(lower, native)), torch.maximum(upper, native))
    variance = (1 - w) ** 2 * scale**2 + w**2 * variance_after + 2 * w * (1 - w) * covariance
    deviation = variance.clamp(min=0).sqrt().clamp(min=MIN_DEVIATION)
    result = (styled - offset - w * (offset_after - offset)) / deviation
    return torch.where((w == 0) | _kept(x, rules), x, result)


def _kept(x: torch.Tensor, rules: ChannelRules) -> torch.Tensor:
    """Return True where a patch shows nothing of the image's own, or only that it was beyond a limit, like ``x``."""
    kept = torch.zeros_like(x, dtype=torch.bool)
    padded = [x[:, i] == 0 for i, scheme in enumerate(rules.schemes) if scheme in (ZSCORE, CT)]
    if padded:
        kept |= torch.stack(padded).all(dim=0)[:, None]
    for channel, scheme in enumerate(rules.schemes):
        values = x[:, channel]
        if rules.masked[channel]:
            kept[:, channel] |= values == 0
        if scheme == CT:
            offset, scale = rules.offset[channel], rules.scale[channel]
            first, last = ((limit[channel] - offset) / scale for limit in (rules.lower, rules.upper))
            kept[:, channel] |= (values <= first + _AT_LIMIT) | (values >= last - _AT_LIMIT)
    return kept


def _by_slice(restyle: Restyle, images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """Call ``restyle`` on ``(B, C, H, W)``, or on every slice of ``(B, C, D, H, W)``."""
    if images.ndim == 4:
        return restyle(images, strength)
    batch, _, depth, *_ = images.shape
    slices = restyle(images.transpose(1, 2).flatten(0, 1), strength.repeat_interleave(depth))
    return slices.unflatten(0, (batch, depth)).transpose(1, 2)
