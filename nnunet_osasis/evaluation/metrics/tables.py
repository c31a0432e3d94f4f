"""The results as tables: CSV of all cases, Markdown and LaTeX of the means.

From scores of cases to what is said of a method: means, spread, and how many values were undefined.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_osasis.evaluation.metrics.folder import FolderScores, describe_left_out
from nnunet_osasis.evaluation.metrics.protocol import COUNTS, METRICS

LATEX = {"\\": r"\textbackslash{}", **{c: f"\\{c}" for c in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\^{}"}

ARROWS = {"higher": "↑", "lower": "↓", "": ""}

LATEX_ARROWS = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "": ""}


def cases_csv(scores: FolderScores) -> str:
    """One line per method, case and class; empty cells where a metric is undefined."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["method", "case", "class", *scores.metrics])
    for score in scores.scores:
        cells = ["" if math.isnan(v) else f"{v:.10g}" for v in score.values.values()]
        writer.writerow([score.method, score.case, score.label, *cells])
    return stream.getvalue()


def markdown_table(summary: Mapping[str, Any]) -> str:
    """Mean (standard deviation over cases) per method, with the protocol and all reservations below."""
    columns = table_columns(summary)
    heads = [f"{head} {ARROWS[METRICS[name].better]}".strip() for head, name in columns.items()]
    lines = ["| method | class | " + " | ".join(heads) + " |", "|---|---|" + "---|" * len(heads)]
    for method, label, cells, best in _rows(summary, columns):
        shown = [f"**{cell}**" if top else cell for cell, top in zip(cells, best, strict=True)]
        lines.append(f"| {method.replace('|', '/')} | {label} | " + " | ".join(shown) + " |")
    return "\n".join([*lines, "", *notes(summary), ""])


def latex_table(summary: Mapping[str, Any]) -> str:
    """The same as a ``booktabs`` table."""
    columns = table_columns(summary)
    heads = [_latex(head) + LATEX_ARROWS[METRICS[name].better] for head, name in columns.items()]
    lines = [r"\begin{tabular}{ll" + "c" * len(heads) + "}", r"\toprule"]
    lines += [" & ".join(["Method", "Class", *heads]) + r" \\", r"\midrule"]
    for method, label, cells, best in _rows(summary, columns):
        shown = [rf"\textbf{{{cell}}}" if top else cell for cell, top in zip(cells, best, strict=True)]
        lines.append(" & ".join([_latex(method), _latex(label), *shown]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {note}" for note in notes(summary)), ""])


def table_columns(summary: Mapping[str, Any]) -> dict[str, str]:
    """The protocol's columns ``{heading: metric}`` that were computed; all metrics when none of them was."""
    computed = summary["definitions"]
    columns = {head: name for head, name in summary["protocol"]["columns"].items() if name in computed}
    return columns or {METRICS[name].label: name for name in computed}


def notes(summary: Mapping[str, Any]) -> list[str]:
    """What a reader of the table has to know, one sentence each."""
    protocol, count = summary["protocol"], len(summary["cases"])
    found = [
        f"Mean (standard deviation) over {count} cases. "
        f"Protocol: {protocol['name']}; threshold {protocol['threshold']:g}"
        f"{', maps stretched to [0, 1]' if protocol['normalize'] else ''}; references: {summary['references']}."
    ]
    computed = summary["definitions"]
    if "nsd" in computed:
        found.append(f"NSD at a tolerance of {protocol['tolerance']:g} (mm, or pixels where files have no spacing).")
    if "lesions" in computed:
        found.append(f"A lesion is found when at least {protocol['lesion_overlap']:.0%} of it is covered.")
    undefined = {
        f"{METRICS[name].label} {statistics['undefined']} ({method}, {label})": None
        for method, classes in summary["methods"].items()
        for label, parts in classes.items()
        for name, statistics in parts["by_case"].items()
        if statistics["undefined"] and name in table_columns(summary).values()
    }
    if undefined:
        found.append(f"Undefined in so many cases, which the means leave out: {'; '.join(undefined)}.")
    if summary["left_out"]:
        found.append(
            f"INCOMPLETE: only cases that all sides have. {'; '.join(describe_left_out(summary['left_out']))}."
        )
    return found


def _rows(summary: Mapping[str, Any], columns: Mapping[str, str]) -> list[tuple[str, str, list[str], list[bool]]]:
    """Method, class, cells, and which cells are the best of several methods (as printed: ties are all best)."""
    methods = summary["methods"]
    labels = list(next(iter(methods.values())))
    rows = []
    for label in labels:
        statistics = {
            method: [classes[label]["by_case"][n] for n in columns.values()] for method, classes in methods.items()
        }
        winners = [_best(n, [row[i] for row in statistics.values()]) for i, n in enumerate(columns.values())]
        for method, row in statistics.items():
            top = [len(methods) > 1 and _digits(s["mean"]) == best for s, best in zip(row, winners, strict=True)]
            rows.append((method, label, [_cell(s) for s in row], top))
    return rows


def _best(name: str, statistics: Sequence[Mapping[str, Any]]) -> str | None:
    means = [s["mean"] for s in statistics if s["mean"] is not None]
    better = METRICS[name].better
    return _digits(max(means) if better == "higher" else min(means)) if means and better else None


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _cell(statistics: Mapping[str, Any]) -> str:
    spread = "" if statistics["std"] is None else f" ({statistics['std']:.3f})"
    return _digits(statistics["mean"]) + spread


def _latex(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)


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
