"""Maps of channel values with few parameters: the form every default read-out has, at any size, edges untouched.

A map is ``x + sum_f coefficients[f] feature_f(x, place)``. Beside the affine terms there can be

* ``quadratic``: products of two channels (a tone curve's bend, crossed colors),
* ``tone``: hat functions of each channel, a free curve,
* ``radial``: a vignette, additive and multiplicative,
* ``field``: a slope across the picture, additive and multiplicative (coil shading).

All are linear in their coefficients, so that one robust regression fits them and maps can be averaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.bands import Band
from nnunet_osasis.maps.base import PixelMap, numbers_of

TERMS = ("quadratic", "tone", "radial", "field")

KNOTS = 5
"""Number of hat functions per channel in the ``tone`` term, evenly spaced over [-1, 1]."""

MIN_SHARE_UNCLIPPED = 0.05
"""Share of pixels that must not be clipped for the clipped ones to be left out of a fit."""

CLIPPED = 0.99
"""Absolute value beyond which a channel counts as clipped, so that it says nothing about the map."""

MAX_PIXELS_IN_QUANTILE = 100_000
"""Number of pixels that quantiles are taken over at most: ``torch.quantile`` refuses very long rows."""

Places = Sequence[torch.Tensor]
"""Squared radius (1 in the corners), column and row (both from -1 to 1), each broadcast over the pixels."""


def _axes(height: int, width: int, like: torch.Tensor, rows: slice = slice(None)) -> Places:
    """Return the places of ``rows`` of a picture as ``(h, W)``, ``(1, W)`` and ``(h, 1)``, as exporters can follow."""

    def axis(size: int) -> torch.Tensor:
        step: Any = 2 / torch.sym_max(size - 1, 1)
        return torch.arange(size, device=like.device, dtype=like.dtype) * step - 1

    row, column = axis(height)[rows, None], axis(width)[None, :]
    return (row * row + column * column) / 2, column, row


def places(height: int, width: int) -> torch.Tensor:
    """Return ``(3, H, W)``: squared radius (1 in the corners), then columns and rows from -1 to 1."""
    return torch.stack(torch.broadcast_tensors(*_axes(height, width, torch.empty(0))))


def _regressors(values: torch.Tensor, where: Places, terms: Sequence[str]) -> Iterator[torch.Tensor]:
    """Yield the features of pixels ``(B, C, ...)`` in the order of the coefficients, each broadcast to one channel."""
    channels = values.split(1, dim=1)
    yield from channels
    yield values.new_ones(1)
    if "quadratic" in terms:
        for i, first in enumerate(channels):
            yield from (first * second for second in channels[i:])
    if "tone" in terms:
        for channel in channels:
            for knot in range(KNOTS):
                center = 2 * knot / (KNOTS - 1) - 1
                yield (1 - (channel - center).abs() * ((KNOTS - 1) / 2)).clamp(min=0)
    for place in (*(where[:1] if "radial" in terms else ()), *(where[1:] if "field" in terms else ())):
        yield place
        yield from (place * channel for channel in channels)


def features(values: torch.Tensor, where: torch.Tensor, terms: Sequence[str]) -> torch.Tensor:
    """Return the regressors of a map, ``(B, F, N)``.

    Args:
        values: pixels ``(B, C, N)`` in [-1, 1].
        where: their ``places``, ``(B or 1, 3, N)``.
        terms: of ``TERMS``; the affine ones (channels, then 1) always come first.
    """
    one_channel = values[:, :1].shape
    regressors = _regressors(values, where.to(values).split(1, dim=1), terms)
    return torch.cat([feature.expand(one_channel) for feature in regressors], dim=1)


def feature_count(channels: int, terms: Sequence[str]) -> int:
    """Return how many regressors ``features`` gives."""
    return features(torch.zeros(1, channels, 1), torch.zeros(1, 3, 1), terms).shape[1]


class ParametricMap(PixelMap, key="coefficients"):
    """``x + coefficients . features(x)``, in [-1, 1], not clipped.

    Args:
        coefficients: ``(C, F)``, output channel first.
        terms: names of the features, see ``features``.
        low: per channel, the smallest value the map was fitted on. Beyond the limits the change is held at its last
            value: what was seen among dark pixels is not drawn on into highlights that the reference never showed.
        high: per channel, the largest value it was fitted on.

    Raises:
        OsasisError: unknown terms, or another number of coefficients or limits than these terms need.

    >>> ParametricMap.affine([[0.5]], [0.25])(torch.zeros(1, 1, 1, 1)).item()
    0.25
    """

    coefficients: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    def __init__(
        self,
        coefficients: Sequence[Sequence[float]],
        terms: Sequence[str],
        low: Sequence[float],
        high: Sequence[float],
    ) -> None:
        super().__init__()
        channels, self.terms = len(coefficients), tuple(terms)
        if unknown := set(self.terms) - set(TERMS):
            raise OsasisError("A map's terms must be known", found=sorted(unknown), remedy=f"Known: {TERMS}.")
        count = feature_count(channels, self.terms)
        if any(len(row) != count for row in coefficients) or not len(low) == len(high) == channels:
            raise OsasisError(
                f"A map of {channels} channels with {self.terms} needs {count} coefficients and limits per channel",
                found=f"{[len(row) for row in coefficients]} and {len(low)}, {len(high)} limits",
                remedy="Make the stylizer anew, or copy its folder again.",
            )
        for name, numbers in (("coefficients", coefficients), ("low", low), ("high", high)):
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.float32))

    @classmethod
    def affine(cls, matrix: Sequence[Sequence[float]], offset: Sequence[float]) -> ParametricMap:
        """Return ``y = matrix x + offset``, the change held beyond [-1, 1].

        Args:
            matrix: ``(C, C)``, output channel first.
            offset: ``(C,)``.
        """
        change = torch.tensor(matrix, dtype=torch.float64) - torch.eye(len(offset), dtype=torch.float64)
        rows = [[*row, shift] for row, shift in zip(change.tolist(), offset, strict=True)]
        return cls(rows, (), [-1.0] * len(rows), [1.0] * len(rows))

    @classmethod
    def fit(
        cls,
        before: torch.Tensor,
        after: torch.Tensor,
        where: torch.Tensor,
        *,
        terms: Sequence[str] = (),
        ridge: float = 1e-3,
        bend_ridge: float = 3e-2,
        anchor: float = 0.0,
        rounds: int = 3,
    ) -> ParametricMap:
        """Regress ``after`` on ``before`` with a ridge that pulls to the identity, outliers down-weighted.

        Pixels that are clipped in either are left out.

        Args:
            before: pixels ``(C, N)`` in [-1, 1].
            after: the same pixels changed.
            where: their ``places`` ``(3, N)``.
            terms: names of the features.
            ridge: weight of the squared affine coefficients (of the change) against the mean squared error; the offset
                is free.
            bend_ridge: weight of all other squared coefficients.
            anchor: weight of a black pixel that stays black, as a share of all pixels.
            rounds: reweighted passes (Huber weights at 1.345 robust standard deviations); 1 is plain least squares.

        Raises:
            OsasisError: fewer pixels than parameters.
        """
        channels = len(before)
        good = (torch.maximum(before.abs(), after.abs()) < CLIPPED).all(dim=0)
        few = max(MIN_SHARE_UNCLIPPED * before.shape[1], 2 * feature_count(channels, terms))
        if int(good.sum()) < few:  # nearly everything is clipped: all pixels say more than a handful
            good = torch.ones_like(good)
        x, where = before[:, good], where[:, good]
        delta = (after[:, good] - x).T.double()
        count = x.shape[1]
        design = features(x[None], where[None], terms)[0].T.double()
        if count <= design.shape[1]:
            raise OsasisError("A color map needs pixels to be fitted on", found=f"{count} pixels in view")
        penalty = torch.full((design.shape[1],), bend_ridge, dtype=torch.float64)
        penalty[:channels], penalty[channels] = ridge, 1e-8
        weight = torch.ones(count, 1, dtype=torch.float64)
        black = features(torch.full((1, channels, 1), -1.0), torch.zeros(1, 3, 1), terms)[0].double()
        held = penalty.diag() + anchor * black @ black.T  # its change is 0
        for _ in range(rounds):
            weighted = design * weight
            solution = torch.linalg.solve(weighted.T @ design / weight.sum() + held, weighted.T @ delta / weight.sum())
            residual = (delta - design @ solution).norm(dim=1, keepdim=True)
            scale = 1.4826 * residual.median().clamp(min=1e-6)
            weight = (1.345 * scale / residual.clamp(min=1e-12)).clamp(max=1)
        thinned = x[:, :: 1 + count // MAX_PIXELS_IN_QUANTILE].float()
        low, high = torch.quantile(thinned, torch.tensor([0.005, 0.995]), dim=1).tolist()
        if anchor > 0:
            low = [-1.0] * channels  # black was seen
        return cls(solution.T.tolist(), terms, low, high)

    def forward(self, images: torch.Tensor, band: Band | None = None) -> torch.Tensor:
        height, rows = (images.shape[-2], slice(None)) if band is None else (band.height, band.rows)
        return self._changed(images, _axes(height, images.shape[-1], images, rows))

    def at(self, values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Apply to pixels ``(B, C, N)`` at ``places`` ``(B or 1, 3, N)``."""
        return self._changed(values, where.to(values).split(1, dim=1))

    def _changed(self, values: torch.Tensor, where: Places) -> torch.Tensor:
        """Sum term by term, in place: a stack of all features would be several times the image."""
        shape = (-1, *(1,) * (values.ndim - 2))
        low, high = self.low.to(values).view(shape), self.high.to(values).view(shape)
        known = torch.minimum(torch.maximum(values, low), high)
        columns = [column.view(shape) for column in self.coefficients.to(values).unbind(1)]
        regressors = _regressors(known, where, self.terms)
        change = columns[0] * next(regressors)
        for column, feature in zip(columns[1:], regressors, strict=True):
            if feature.ndim < values.ndim:  # one for all images: quicker than three broadcast factors
                change.add_(column * feature)
            else:
                change.addcmul_(column, feature)
        return change.add_(values)

    def to_json(self) -> dict[str, Any]:
        limits = {"low": numbers_of(self.low), "high": numbers_of(self.high)}
        return {"coefficients": numbers_of(self.coefficients), "terms": list(self.terms), **limits}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        rows = [[float(v) for v in row] for row in values["coefficients"]]
        return cls(rows, values["terms"], values["low"], values["high"])


def fit_images(
    before: torch.Tensor, after: torch.Tensor, view: torch.Tensor, *, terms: Sequence[str] = (), **options: Any
) -> ParametricMap:
    """Call ``ParametricMap.fit`` on images ``(B, C, H, W)`` where ``view`` ``(B, 1, H, W)`` holds."""
    keep = view[:, 0].cpu()
    where = places(*before.shape[-2:])[:, None].expand(-1, len(before), -1, -1)
    pixels = [image.cpu().permute(1, 0, 2, 3)[:, keep] for image in (before, after)]
    return ParametricMap.fit(pixels[0], pixels[1], where[:, keep], terms=terms, **options)
