"""The metrics of one case, and of the classes of one label map."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.metrics.case import Case, make_case
from nnunet_osasis.evaluation.metrics.protocol import METRICS, Protocol, choose_protocol
from nnunet_osasis.evaluation.metrics.regions import absolute_error, lesions, overlap, thresholds
from nnunet_osasis.evaluation.metrics.saliency import (
    adaptive_alignment,
    alignment,
    continuous_alignment,
    structure,
    weighted_f,
)
from nnunet_osasis.evaluation.metrics.surface import hausdorff95, surface_dice

GROUPS: dict[str, Callable[[Case], dict[str, float]]] = {
    "overlap": overlap,
    "thresholds": thresholds,
    "weighted": weighted_f,
    "structure": structure,
    "alignment": alignment,
    "adaptive": adaptive_alignment,
    "continuous": continuous_alignment,
    "error": absolute_error,
    "hausdorff": hausdorff95,
    "surface": surface_dice,
    "lesions": lesions,
}


def choose_metrics(metrics: Iterable[str] | None, protocol: Protocol, *, dimensions: int) -> tuple[str, ...]:
    """Return the names to compute for images of two or three dimensions, in the order of ``METRICS``.

    None means what the protocol computes by itself, as far as it is defined for these dimensions.

    Raises:
        OsasisError: a name is unknown, or a measure of images is asked for on volumes.
    """
    if metrics is None:
        names = METRICS if protocol.complete else protocol.columns.values()
        return tuple(name for name, d in METRICS.items() if name in names and (dimensions == 2 or not d.planar))
    asked = tuple(metrics)
    if unknown := [name for name in asked if name not in METRICS]:
        raise OsasisError(
            "Metrics must be known", found=", ".join(unknown), remedy=f"Choose from {', '.join(METRICS)}."
        )
    if planar := [name for name in asked if METRICS[name].planar and dimensions != 2]:
        raise OsasisError(
            "S, E and weighted F are defined on images only",
            found=f"{', '.join(planar)} for a volume",
            remedy="Score the volume's slices, or leave these metrics out.",
        )
    return tuple(name for name in METRICS if name in asked)


def score_case(
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    protocol: str | Protocol = "standard",
    spacing: Sequence[float] | None = None,
    metrics: Iterable[str] | None = None,
) -> dict[str, float]:
    """Return the metrics of one prediction. Only the groups that ``metrics`` asks for are computed.

    Args:
        prediction: ``(H, W)`` or ``(D, H, W)``: a map in [0, 1], or a mask.
        truth: same shape, 0 and 1.
        protocol: a name, or ``choose_protocol("standard", tolerance=3.0)`` and the like.
        spacing: size of a pixel along each axis for distances; None: 1.
        metrics: names from ``METRICS``; None: all that are defined for these dimensions (of the protocol's columns,
            if it is another one than ``standard``).

    Returns:
        ``{name: value}`` in the order of ``METRICS``; NaN where a metric is undefined (``docs/evaluation.md``).

    Raises:
        OsasisError: for other sizes, NaN, values outside [0, 1], or unknown metrics.

    >>> score_case(np.eye(4), np.eye(4), metrics=["dice"])
    {'dice': 1.0}
    """
    chosen = choose_protocol(protocol)
    names = choose_metrics(metrics, chosen, dimensions=np.ndim(truth))
    return score_checked(make_case(prediction, truth, chosen, spacing=spacing), names)


def score_checked(case: Case, names: Sequence[str]) -> dict[str, float]:
    """Return the named metrics of a case that was checked before."""
    values: dict[str, float] = {}
    for group in dict.fromkeys(METRICS[name].group for name in names):
        values.update(GROUPS[group](case))
    return {name: float(values[name]) for name in names}


def score_labels(
    prediction: np.ndarray | Mapping[int, np.ndarray],
    truth: np.ndarray,
    classes: Sequence[int],
    *,
    protocol: str | Protocol = "standard",
    spacing: Sequence[float] | None = None,
    metrics: Iterable[str] | None = None,
) -> dict[int | str, dict[str, float]]:
    """Return the metrics of each class against the rest, and under ``"mean"`` their mean without the background.

    Args:
        prediction: a label map, or one map in [0, 1] per class.
        truth: label map of the same shape.
        classes: the labels to score.
        protocol: as for :func:`score_case`.
        spacing: as for :func:`score_case`.
        metrics: as for :func:`score_case`.

    A class that neither side holds counts as the protocol says (``standard``: Dice 1); NaN stays out of the mean.
    """
    names = None if metrics is None else tuple(metrics)
    scores: dict[int | str, dict[str, float]] = {}
    for label in classes:
        mask = prediction[label] if isinstance(prediction, Mapping) else np.asarray(prediction) == label
        scores[label] = score_case(mask, np.asarray(truth) == label, protocol=protocol, spacing=spacing, metrics=names)
    scores["mean"] = mean_scores(list(scores.values()))
    return scores


def mean_scores(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over the rows where it is defined."""
    return {name: mean_defined([row[name] for row in rows]) for name in (rows[0] if rows else ())}


def mean_defined(values: Iterable[float]) -> float:
    """Return the mean of the values that are not NaN; NaN when all are."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan
