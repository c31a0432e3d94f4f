"""Maps of channel values with few parameters: the form every default read-out has, at any size, edges untouched.

A map is ``x + sum_f coefficients[f] feature_f(x, place)``. Beside the affine terms there can be

* ``quadratic``: products of two channels (a tone curve's bend, crossed colours),
* ``tone``: hat functions of each channel, a free curve,
* ``radial``: a vignette, additive and multiplicative,
* ``field``: a slope across the picture, additive and multiplicative (coil shading).

All are linear in their coefficients, so that one robust regression fits them and maps can be averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nnunet_osasis.errors import OsasisError

TERMS = ("quadratic", "tone", "radial", "field")

KNOTS = 5
"""Hat functions per channel of the ``tone`` term, evenly spaced over [-1, 1]."""

FEWEST = 0.05
"""Share of pixels that must not be clipped for the clipped ones to be left out."""

CLIPPED = 0.99
"""Beyond this absolute value a channel counts as clipped: it says nothing about the map."""


def places(height: int, width: int) -> torch.Tensor:
    """``(3, H, W)``: squared radius (1 in the corners), then columns and rows from -1 to 1."""
    rows = torch.linspace(-1, 1, height)[:, None].expand(height, width)
    columns = torch.linspace(-1, 1, width)[None, :].expand(height, width)
    return torch.stack([(rows**2 + columns**2) / 2, columns, rows])


def features(values: torch.Tensor, where: torch.Tensor, terms: Sequence[str]) -> torch.Tensor:
    """Regressors of a map: ``(B, F, N)``.

    Args:
        values: pixels ``(B, C, N)`` in [-1, 1]. where: their ``places``, ``(B or 1, 3, N)``.
        terms: of ``TERMS``; the affine ones (channels, then 1) always come first.
    """
    one = torch.ones_like(values[:, :1])
    parts = [values, one]
    channels = values.shape[1]
    if "quadratic" in terms:
        first, second = torch.triu_indices(channels, channels)
        parts.append(values[:, first] * values[:, second])
    if "tone" in terms:
        knots = torch.linspace(-1, 1, KNOTS).to(values)
        hats = (1 - (values[:, :, None] - knots[:, None]).abs() * (KNOTS - 1) / 2).clamp(min=0)
        parts.append(hats.flatten(1, 2))
    if "radial" in terms:
        radius = where[:, :1].to(values).expand_as(one)
        parts += [radius, radius * values]
    if "field" in terms:
        for axis in (1, 2):
            slope = where[:, axis : axis + 1].to(values).expand_as(one)
            parts += [slope, slope * values]
    return torch.cat(parts, dim=1)


def feature_count(channels: int, terms: Sequence[str]) -> int:
    """How many regressors ``features`` gives."""
    return features(torch.zeros(1, channels, 1), torch.zeros(1, 3, 1), terms).shape[1]


@dataclass(frozen=True)
class ParametricMap:
    """``x + coefficients . features(x)``, in [-1, 1], not clipped.

    Attributes:
        coefficients: ``(C, F)``, output channel first.
        terms: which features, see ``features``.
        low, high: per channel, the values it was fitted on. Beyond them the change is held at its last value: what was
            seen among dark pixels is not drawn on into highlights that the reference never showed.
    """

    coefficients: tuple[tuple[float, ...], ...]
    terms: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        channels = len(self.coefficients)
        unknown = set(self.terms) - set(TERMS)
        if unknown:
            raise OsasisError("A map's terms must be known", found=sorted(unknown), remedy=f"Known: {TERMS}.")
        wanted = feature_count(channels, self.terms)
        if any(len(row) != wanted for row in self.coefficients) or not len(self.low) == len(self.high) == channels:
            raise OsasisError(
                f"A map of {channels} channels with {self.terms} needs {wanted} coefficients and limits per channel",
                found=f"{[len(row) for row in self.coefficients]} and {len(self.low)}, {len(self.high)} limits",
                remedy="Make the stylizer anew, or copy its folder again.",
            )

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
        """Ridge regression of ``after`` on ``before``, pulled to the identity, outliers down-weighted.

        Args:
            before, after: matching pixels ``(C, N)`` in [-1, 1]; those clipped in either are left out.
            where: their ``places`` ``(3, N)``.
            ridge: weight of the squared affine coefficients (of the change) against the mean squared error;
                ``bend_ridge``: of all other terms. The offset is free.
            anchor: weight of a black pixel that stays black, as a share of all pixels.
            rounds: reweighted passes (Huber weights at 1.345 robust standard deviations); 1 is plain least squares.

        Raises ``OsasisError`` when there are fewer pixels than parameters.
        """
        channels = len(before)
        good = (torch.maximum(before.abs(), after.abs()) < CLIPPED).all(dim=0)
        few = max(FEWEST * before.shape[1], 2 * feature_count(channels, terms))
        if int(good.sum()) < few:  # nearly everything is clipped: all pixels say more than a handful
            good = torch.ones_like(good)
        x, where = before[:, good], where[:, good]
        delta = (after[:, good] - x).T.double()
        count = x.shape[1]
        design = features(x[None], where[None], terms)[0].T.double()
        if count <= design.shape[1]:
            raise OsasisError("A colour map needs pixels to be fitted on", found=f"{count} pixels in view")
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
        limits = torch.quantile(_thinned(x), torch.tensor([0.005, 0.995]), dim=1)
        if anchor > 0:
            limits[0] = -1.0  # black was seen
        return cls(tuple(tuple(row) for row in solution.T.tolist()), tuple(terms), *(tuple(v.tolist()) for v in limits))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Apply to ``(B, C, H, W)``; not clipped."""
        where = places(*images.shape[-2:]).to(images).flatten(1)[None]
        return self.at(images.flatten(2), where).view_as(images)

    def at(self, values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        """Apply to pixels ``(B, C, N)`` at ``places`` ``(B or 1, 3, N)``."""
        coefficients = torch.tensor(self.coefficients, dtype=torch.float64).to(values)
        low, high = (torch.tensor(v).to(values)[None, :, None] for v in (self.low, self.high))
        known = torch.minimum(torch.maximum(values, low), high)
        return values + torch.einsum("of,bfn->bon", coefficients, features(known, where, self.terms))

    def to_json(self) -> dict[str, Any]:
        """JSON form; ``from_json`` reads it."""
        return {"coefficients": self.coefficients, "terms": self.terms, "low": self.low, "high": self.high}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ParametricMap:
        """Back from ``to_json``. Raises ``KeyError``, ``TypeError`` or ``OsasisError`` for anything else."""
        rows = tuple(tuple(float(v) for v in row) for row in values["coefficients"])
        return cls(rows, tuple(values["terms"]), tuple(values["low"]), tuple(values["high"]))


def _thinned(x: torch.Tensor, most: int = 100_000) -> torch.Tensor:
    """At most so many pixels of ``(C, N)``: ``torch.quantile`` refuses very long rows."""
    return x[:, :: 1 + x.shape[1] // most].float()


def fit_images(
    before: torch.Tensor, after: torch.Tensor, view: torch.Tensor, *, terms: Sequence[str] = (), **options: float
) -> ParametricMap:
    """``ParametricMap.fit`` on images ``(B, C, H, W)`` where ``view`` ``(B, 1, H, W)`` holds."""
    keep = view[:, 0].cpu()
    where = places(*before.shape[-2:])[:, None].expand(-1, len(before), -1, -1)
    pixels = [image.cpu().permute(1, 0, 2, 3)[:, keep] for image in (before, after)]
    return ParametricMap.fit(pixels[0], pixels[1], where[:, keep], terms=terms, **options)  # type: ignore[arg-type]
