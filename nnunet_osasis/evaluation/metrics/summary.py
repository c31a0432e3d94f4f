"""From the scores of cases to numbers about a method: mean, spread, and how many values are undefined."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from nnunet_osasis.evaluation.metrics.folder import FolderScores
from nnunet_osasis.evaluation.metrics.protocol import COUNTS, METRICS

RESAMPLES = 5000
"""Number of bootstrap resamples."""


def summarize(scores: FolderScores) -> dict[str, Any]:
    """Return the content of ``summary.json``; JSON types only (None where a number is undefined)."""
    protocol = dataclasses.asdict(scores.protocol)
    return {
        "protocol": {name: None if value != value else value for name, value in protocol.items()},
        "references": scores.reading.text,
        "scales": scores.scales,
        "cases": list(scores.pairs.references),
        "left_out": scores.pairs.left_out,
        "definitions": {name: _definition(name) for name in scores.metrics},
        "methods": {
            method: {label: _class_summary(scores, method, label) for label in scores.labels}
            for method in scores.methods
        },
        "reference_method": scores.methods[0],
        "differences": paired_differences(scores),
    }


summarise = summarize


def _definition(name: str) -> dict[str, Any]:
    values = dataclasses.asdict(METRICS[name])
    return {key: None if value == math.inf else value for key, value in values.items() if key != "group"}


def _class_summary(scores: FolderScores, method: str, label: str) -> dict[str, Any]:
    rows = [score.values for score in scores.scores if (score.method, score.label) == (method, label)]
    values = {name: [row[name] for row in rows] for name in scores.metrics}
    pooled: dict[str, float] = {}
    if (method, label) in scores.curves:
        # PySODMetrics and the published tables average the curves first and then take the largest value.
        pooled["e_max_of_mean_curve"] = float(scores.curves[method, label].max())
    if "lesions" in values and "lesions_found" in values and np.nansum(values["lesions"]):
        pooled["lesion_recall"] = float(np.nansum(values["lesions_found"]) / np.nansum(values["lesions"]))
    by_case = {name: statistics_of(column, count=name in COUNTS) for name, column in values.items()}
    return {"by_case": by_case, "over_all_cases": pooled}


def statistics_of(values: Sequence[float], *, count: bool = False) -> dict[str, Any]:
    """Return mean, standard deviation (of the sample), median, and how many values are defined.

    Args:
        values: by case, NaN where undefined.
        count: whether the values are counts, whose ``sum`` means something.
    """
    array = np.asarray(values, dtype=float)
    defined = array[~np.isnan(array)]
    statistics: dict[str, Any] = {
        "mean": float(defined.mean()) if len(defined) else None,
        "std": float(defined.std(ddof=1)) if len(defined) > 1 else None,
        "median": float(np.median(defined)) if len(defined) else None,
        "defined": len(defined),
        "undefined": len(array) - len(defined),
    }
    return {**statistics, "sum": float(defined.sum())} if count else statistics


def paired_differences(scores: FolderScores) -> dict[str, dict[str, dict[str, Any]]]:
    """Return every method's differences to the first one, over the cases where both are defined.

    The interval is the 95 % percentile bootstrap over cases, which it takes for independent; None below two cases.

    Returns:
        ``{method: {metric: {"mean", "low", "high", "cases"}}}`` of the last class (foreground, or the mean of classes).
    """
    last = [score for score in scores.scores if score.label == scores.labels[-1]]
    values = {(score.method, score.case): score.values for score in last}
    first, *others = scores.methods
    differences: dict[str, dict[str, dict[str, Any]]] = {}
    for method in others:
        differences[method] = {}
        for name in scores.metrics:
            pairs = [(values[method, case][name], values[first, case][name]) for case in scores.pairs.references]
            apart = np.array([own - base for own, base in pairs])
            differences[method][name] = _difference(apart[~np.isnan(apart)])
    return differences


def _difference(apart: np.ndarray) -> dict[str, Any]:
    if len(apart) < 2:
        mean = float(apart[0]) if len(apart) else None
        return {"mean": mean, "low": None, "high": None, "cases": len(apart)}
    found = bootstrap(
        (apart,), np.mean, n_resamples=RESAMPLES, batch=500, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return {"mean": float(apart.mean()), "low": float(found.low), "high": float(found.high), "cases": len(apart)}


def mean_table(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return ``{method: {metric: mean}}`` of the last class (foreground, or the mean of classes); NaN if undefined."""
    table = {}
    for method, classes in summary["methods"].items():
        last = list(classes.values())[-1]["by_case"]
        table[method] = {name: math.nan if s["mean"] is None else s["mean"] for name, s in last.items()}
    return table


def table_columns(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the protocol's columns ``{heading: metric}`` that were computed, or all metrics if none of them was."""
    computed = summary["definitions"]
    columns = {head: name for head, name in summary["protocol"]["columns"].items() if name in computed}
    return columns or {METRICS[name].label: name for name in computed}
