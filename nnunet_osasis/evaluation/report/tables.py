"""The report's tables, as data frames of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nnunet_osasis.evaluation.experiment.config import Experiment
from nnunet_osasis.evaluation.experiment.data import SOURCE
from nnunet_osasis.evaluation.metrics.protocol import METRICS
from nnunet_osasis.evaluation.report.statistics import mean_interval

Entries = Sequence[Mapping[str, Any]]

METRICS_PER_TABLE = 6
"""Columns of metrics that fit a page beside the methods' names."""

NOTHING = "–"
"""Text of a cell without a value."""


def score_table(experiment: Experiment, entries: Entries) -> pd.DataFrame:
    """Return one row per method: the scores on both sites, and their spread over trainings."""
    label = METRICS[experiment.metrics[0]].label
    rows = []
    for entry in entries:
        rows.append(
            {
                "method": entry["label"],
                f"{label} in-domain": with_interval(entry["source"]),
                f"{label} on {entry['target_name']}": with_interval(entry["target"]),
                "spread over seeds": NOTHING if entry["spread"] is None else f"{entry['spread']:.3f}",
            }
        )
    return pd.DataFrame(rows)


def main_table(entries: Entries) -> pd.DataFrame:
    """Return one row per method: paired differences to none in points, corrected p, gap closed, in-domain cost."""
    rows = []
    for entry in entries:
        if entry["role"] != "baseline":
            rows.append(
                {
                    "method minus none, points (95 %)": entry["label"],
                    f"on {entry['target_name']}": points(entry["difference"]),
                    "p (Holm)": p_value(entry.get("test_holm")),
                    "p (Wilcoxon)": p_value(entry.get("p_holm")),
                    "gap closed": share(entry["gap_closed"]),
                    "in-domain": points(entry["source_difference"]),
                }
            )
    return pd.DataFrame(rows)


def metric_tables(experiment: Experiment, entries: Entries) -> list[pd.DataFrame]:
    """Return the means of all metrics on the target, ``METRICS_PER_TABLE`` a table."""
    names = experiment.metrics
    parts = [names[start : start + METRICS_PER_TABLE] for start in range(0, len(names), METRICS_PER_TABLE)]
    return [metric_table(part, entries) for part in parts]


def metric_table(names: Sequence[str], entries: Entries) -> pd.DataFrame:
    """Return the means of metrics on the target; the number of undefined values stands in brackets."""
    rows = []
    for entry in entries:
        row = {"method": entry["label"]}
        for name in names:
            metric, value, missing = METRICS[name], entry["metrics"][name], entry["undefined"].get(name, 0)
            text = NOTHING if value is None else f"{value:.3f}" if metric.upper == 1 else f"{value:.2f}"
            heading = f"{metric.label} (lower)" if metric.better == "lower" else metric.label
            row[heading] = f"{text} ({missing} undefined)" if missing else text
        rows.append(row)
    return pd.DataFrame(rows)


def distance_table(experiment: Experiment, distances: Entries) -> pd.DataFrame:
    """Return the image distances of styled training images to the true rendering, mean and interval over images."""
    labels = {method.name: method.label for method in experiment.methods}
    rows = [
        {
            "target, method": f"{entry['target']}, {labels[entry['method']]}",
            "PSNR, dB (higher)": with_interval(mean_interval(entry["psnr"]), 1),
            "SSIM (higher)": with_interval(mean_interval(entry["ssim"])),
            "CIEDE2000 (lower)": with_interval(mean_interval(entry["ciede2000"]), 2),
        }
        for entry in distances
    ]
    return pd.DataFrame(rows)


def styled_table(experiment: Experiment, styled: Entries) -> pd.DataFrame:
    """Return what happened to the training images: the gate's decisions and how far the masks' edges moved."""
    labels = {method.name: method.label for method in experiment.methods}
    rows = []
    for record in styled:
        label, edges = labels[record["method"]], record["edges"]
        decisions = ", ".join(f"{count} {outcome}" for outcome, count in sorted(record["gate"].items()))
        rows.append(
            {
                "target, method": label if record["target"] is None else f"{record['target']}, {label}",
                "structure gate (images)": decisions or "not gated",
                "edge shift, px (median)": NOTHING if edges is None else f"{edges['median']:.2f}",
                "edge moved > 1 px": NOTHING if edges is None else f"{edges['moved']:.0%}",
            }
        )
    return pd.DataFrame(rows)


def cost_table(experiment: Experiment, results: Mapping[str, Any]) -> pd.DataFrame:
    """Return what every method costs beyond a plain training: fitting, styling, and the training itself."""
    rows = []
    for method in experiment.methods:
        styled = [record for record in results["styled"] if record["method"] == method.name]
        for network in experiment.networks:
            cells = [cell for cell in results["cells"] if _belongs(cell["cell"], network.name, method.name)]
            if not cells:
                continue
            memory = [cell["peak_memory_mib"] for cell in cells if cell["peak_memory_mib"] is not None]
            rows.append(
                {
                    "method": method.label if len(experiment.networks) == 1 else f"{method.label}, {network.name}",
                    "fit or load, s": _mean([record["seconds_fit"] for record in styled], 2),
                    "styling, ms per image": _mean([1000 * record["seconds_per_image"] for record in styled], 1),
                    "training, s": _mean([cell["seconds_train"] for cell in cells], 0),
                    "prediction, s": _mean([cell["seconds_predict"] for cell in cells], 0),
                    "peak memory of a training, MiB": _mean(memory, 0),
                }
            )
    return pd.DataFrame(rows)


def data_table(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return the counts of images and groups, and the references."""
    columns = ("set", "images", "groups", "reference, and how it was chosen")
    data = results["data"]
    rows = [("training (source)", str(data["training_images"]), NOTHING, NOTHING)]
    for name, count in data["test_images"].items():
        reference = data["references"].get(name)
        text = NOTHING if reference is None else f"{reference['case']}: {reference['rule']}"
        title = "in-domain test" if name == SOURCE else name if name == "target" else f"target {name}"
        rows.append((title, str(count), str(data["test_groups"][name]), text))
    return pd.DataFrame(rows, columns=columns)


def with_interval(value: Mapping[str, float], digits: int = 3) -> str:
    """Return ``0.123 (0.100 to 0.146)``."""
    return f"{value['mean']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


def points(value: Mapping[str, float]) -> str:
    """Return a difference in hundredths, ``+1.2 (-0.3 to +2.7)``."""
    return f"{100 * value['mean']:+.1f} ({100 * value['low']:+.1f} to {100 * value['high']:+.1f})"


def p_value(p: float | None) -> str:
    """Return three digits, or ``< 0.001``."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def share(value: Mapping[str, float] | None) -> str:
    """Return ``45 % (20 to 70)``."""
    if value is None:
        return NOTHING
    return f"{100 * value['mean']:.0f} % ({100 * value['low']:.0f} to {100 * value['high']:.0f})"


def _belongs(cell: str, network: str, method: str) -> bool:
    parts = cell.split("__")
    return parts[0] == network and parts[1].split("@")[0] == method


def _mean(values: Sequence[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f}" if values else NOTHING
