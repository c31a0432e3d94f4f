"""From scores of cases to what is said of a method: means, spread, and how many values were undefined."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_osasis.metrics.definitions import COUNTS, METRICS
from nnunet_osasis.metrics.folder import FolderScores


def statistics_of(values: Sequence[float], *, count: bool = False) -> dict[str, Any]:
    """Mean, standard deviation (of the sample), median, and how many values were defined; None for what is not.

    ``count``: the values are counts, whose ``sum`` means something.
    """
    array = np.asarray(values, dtype=float)
    defined = array[~np.isnan(array)]
    some = len(defined) > 0
    found: dict[str, Any] = {
        "mean": float(defined.mean()) if some else None,
        "std": float(defined.std(ddof=1)) if len(defined) > 1 else None,
        "median": float(np.median(defined)) if some else None,
        "defined": len(defined),
        "undefined": len(array) - len(defined),
    }
    return {**found, "sum": float(defined.sum())} if count else found


def values_of(scores: FolderScores, method: str, label: str) -> dict[str, list[float]]:
    """``{metric: values by case}`` of one method and class."""
    rows = [score.values for score in scores.scores if (score.method, score.label) == (method, label)]
    return {name: [row[name] for row in rows] for name in scores.metrics}


def summarise(scores: FolderScores) -> dict[str, Any]:
    """Everything ``summary.json`` says; JSON types only (None where a number is undefined)."""
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
    }


def _definition(name: str) -> dict[str, Any]:
    values = dataclasses.asdict(METRICS[name])
    return {key: None if value == math.inf else value for key, value in values.items() if key != "group"}


def _class_summary(scores: FolderScores, method: str, label: str) -> dict[str, Any]:
    values = values_of(scores, method, label)
    found: dict[str, Any] = {name: statistics_of(v, count=name in COUNTS) for name, v in values.items()}
    whole: dict[str, float] = {}
    if (method, label) in scores.curves:
        # PySODMetrics and the published tables average the curves first and then take the largest value.
        whole["e_max_of_mean_curve"] = float(scores.curves[method, label].max())
    if "lesions" in values and "lesions_found" in values and np.nansum(values["lesions"]):
        whole["lesion_recall"] = float(np.nansum(values["lesions_found"]) / np.nansum(values["lesions"]))
    return {"by_case": found, "over_all_cases": whole}


def mean_table(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """``{method: {metric: mean}}`` of the last class (foreground, or the mean of the classes); NaN where undefined."""
    table = {}
    for method, classes in summary["methods"].items():
        last = list(classes.values())[-1]["by_case"]
        table[method] = {name: math.nan if s["mean"] is None else s["mean"] for name, s in last.items()}
    return table
