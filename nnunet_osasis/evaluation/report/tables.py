"""The report's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_osasis.evaluation.experiment.config import Experiment
from nnunet_osasis.evaluation.experiment.data import SOURCE
from nnunet_osasis.evaluation.metrics.protocol import METRICS
from nnunet_osasis.evaluation.report.document import Table
from nnunet_osasis.evaluation.report.statistics import mean_interval

Entries = Sequence[Mapping[str, Any]]

NOTHING = "–"


def main_table(experiment: Experiment, entries: Entries) -> Table:
    """One row per method: both sites, paired differences in points, corrected p, gap closed, spread over seeds."""
    label = METRICS[experiment.metrics[0]].label
    columns = (
        "method",
        f"{label} in-domain",
        f"{label} on the target",
        "difference, points (95 %)",
        "p (Holm)",
        "p (Wilcoxon, Holm)",
        "gap closed",
        "spread over seeds",
        "in-domain cost, points (95 %)",
    )
    rows = []
    for entry in entries:
        base = entry["role"] == "baseline"
        rows.append(
            (
                entry["label"],
                f"{entry['source']['mean']:.3f}",
                with_interval(entry["target"]),
                NOTHING if base else points(entry["difference"]),
                p_value(entry.get("test_holm")),
                p_value(entry.get("p_holm")),
                share(entry["gap_closed"]),
                NOTHING if entry["spread"] is None else f"{entry['spread']:.3f}",
                NOTHING if base else points(entry["source_difference"]),
            )
        )
    return Table(columns, tuple(rows))


def metric_table(experiment: Experiment, entries: Entries) -> Table:
    """Means of all metrics on the target; how many values were undefined stands in brackets."""
    columns = ("method", *(_heading(name) for name in experiment.metrics))
    rows = []
    for entry in entries:
        cells = []
        for name in experiment.metrics:
            value, missing = entry["metrics"][name], entry["undefined"].get(name, 0)
            text = NOTHING if value is None else f"{value:.3f}" if METRICS[name].upper == 1 else f"{value:.2f}"
            cells.append(f"{text} ({missing} undefined)" if missing else text)
        rows.append((entry["label"], *cells))
    return Table(columns, tuple(rows))


def distance_table(experiment: Experiment, distances: Entries) -> Table:
    """Image distance of styled training images to the true rendering, mean and interval over images."""
    labels = {method.name: method.label for method in experiment.methods}
    columns = ("target, method", "PSNR, dB (higher)", "SSIM (higher)", "CIEDE2000 (lower)")
    rows = [
        (
            f"{entry['target']}, {labels[entry['method']]}",
            with_interval(mean_interval(entry["psnr"]), 1),
            with_interval(mean_interval(entry["ssim"])),
            with_interval(mean_interval(entry["ciede2000"]), 2),
        )
        for entry in distances
    ]
    return Table(columns, tuple(rows))


def cost_table(experiment: Experiment, results: Mapping[str, Any]) -> Table:
    """What every method costs beyond a plain training: fitting, styling, and the training itself."""
    styled: dict[str, list[Mapping[str, Any]]] = {}
    for fact in results["styled"]:
        styled.setdefault(fact["method"], []).append(fact)
    rows = []
    for method in experiment.methods:
        for network in experiment.networks:
            cells = [c for c in results["cells"] if _belongs(c["cell"], network.name, method.name)]
            if not cells:
                continue
            facts = styled.get(method.name, [])
            rows.append(
                (
                    method.label if len(experiment.networks) == 1 else f"{method.label}, {network.name}",
                    _mean([fact["seconds_fit"] for fact in facts], "{:.2f}"),
                    _mean([1000 * fact["seconds_per_image"] for fact in facts], "{:.1f}"),
                    _mean([cell["seconds_train"] for cell in cells], "{:.0f}"),
                    _mean([c["peak_memory_mib"] for c in cells if c["peak_memory_mib"] is not None], "{:.0f}"),
                )
            )
    columns = ("method", "fit or load, s", "styling, ms per image", "training, s", "peak memory of a training, MiB")
    return Table(columns, tuple(rows))


def data_table(experiment: Experiment, results: Mapping[str, Any]) -> Table:
    """Counts and references."""
    data = results["data"]
    rows = [("training (source)", str(data["training_images"]), NOTHING, NOTHING)]
    for name, count in data["test_images"].items():
        reference = data["references"].get(name)
        text = NOTHING if reference is None else f"{reference['case']}: {reference['rule']}"
        title = "in-domain test" if name == SOURCE else f"target {name}"
        rows.append((title, str(count), str(data["test_groups"][name]), text))
    return Table(("set", "images", "groups", "reference, and how it was chosen"), tuple(rows))


def with_interval(value: Mapping[str, float], digits: int = 3) -> str:
    """``0.123 (0.100 to 0.146)``."""
    return f"{value['mean']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


def points(value: Mapping[str, float]) -> str:
    """A difference in hundredths, ``+1.2 (-0.3 to +2.7)``."""
    return f"{100 * value['mean']:+.1f} ({100 * value['low']:+.1f} to {100 * value['high']:+.1f})"


def p_value(p: float | None) -> str:
    """Three digits, or a bound."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def share(value: Mapping[str, float] | None) -> str:
    """``45 % (20 to 70)``."""
    if value is None:
        return NOTHING
    return f"{100 * value['mean']:.0f} % ({100 * value['low']:.0f} to {100 * value['high']:.0f})"


def _heading(name: str) -> str:
    return f"{METRICS[name].label} ({METRICS[name].better})" if METRICS[name].better == "lower" else METRICS[name].label


def _belongs(cell: str, network: str, method: str) -> bool:
    parts = cell.split("__")
    return parts[0] == network and parts[1].split("@")[0] == method


def _mean(values: Sequence[float], form: str) -> str:
    return form.format(float(np.mean(values))) if values else NOTHING
