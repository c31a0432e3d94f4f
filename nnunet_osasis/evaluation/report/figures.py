"""The report's charts and pictures, as files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.evaluation.experiment import tasks as work
from nnunet_osasis.evaluation.experiment.config import Experiment
from nnunet_osasis.evaluation.experiment.data import test_masks
from nnunet_osasis.evaluation.experiment.runner import Outcome, styled_pairs, styled_path
from nnunet_osasis.evaluation.metrics.charts import COLOURS, MARKS, GridRow, qualitative_grid, radar_chart, write_figure
from nnunet_osasis.evaluation.metrics.protocol import METRICS
from nnunet_osasis.evaluation.report.summary import ScoreTable

RADAR_LINES = 5

SCATTER_PANELS = 4

GRID_ROWS = 5

Entries = Sequence[Mapping[str, Any]]


def shown_methods(entries: Entries, most: int) -> list[Mapping[str, Any]]:
    """No style transfer, every stylizer, the best free controls and the upper bound: the rows a chart has room for."""
    none = [entry for entry in entries if entry["role"] == "baseline"]
    stylizers = [entry for entry in entries if entry["role"] == "stylizer"][: most - 2]
    bound = [entry for entry in entries if entry["kind"] == "truth"][:1]
    controls = sorted((e for e in entries if e["role"] == "control"), key=lambda e: -e["target"]["mean"])
    room = max(1, most - len(none) - len(stylizers) - len(bound))
    return [*none, *controls[:room], *stylizers, *bound][:most]


def radar(entries: Entries, path: Path, title: str) -> Path | None:
    """Metrics in [0, 1] of the methods of one network and target, higher is better; None with fewer than three."""
    names = [n for n in entries[0]["metrics"] if METRICS[n].upper == 1 and METRICS[n].better]
    series = {}
    for entry in shown_methods(entries, RADAR_LINES):
        values = {name: entry["metrics"][name] for name in names}
        series[entry["label"]] = {
            _axis(name): float("nan") if value is None else value if METRICS[name].better == "higher" else 1 - value
            for name, value in values.items()
        }
    usable = [axis for axis in next(iter(series.values())) if all(np.isfinite(s[axis]) for s in series.values())]
    return radar_chart(series, path, title=title) if len(usable) >= 3 else None


def scatter(entries: Entries, table: ScoreTable, metric: str, path: Path) -> Path | None:
    """Score per target case before (no style transfer) against after, mean over seeds, one panel per method."""
    panels = [entry for entry in shown_methods(entries, SCATTER_PANELS + 1) if entry["role"] != "baseline"]
    if not panels:
        return None
    place = entries[0]["network"], entries[0]["target_name"]

    def scores(method: str) -> np.ndarray:
        found = (table.scores(place[0], method, style, place[1], metric) for style in (place[1], None))
        return np.asarray(next(s for s in found if s is not None).mean(axis=0))

    before = scores(entries[0]["method"])  # the baseline comes first

    def draw() -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(2.6 * len(panels) + 0.4, 3.1), dpi=150, layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
        for index, (axis, entry) in enumerate(zip(axes, panels, strict=True)):
            axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
            axis.scatter(
                before, scores(entry["method"]), s=14, alpha=0.75, color=COLOURS[index % len(COLOURS)],
                marker=MARKS[index % len(MARKS)], linewidths=0,
            )  # fmt: skip
            axis.set_title(entry["label"], fontsize=8, wrap=True)
            axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
            axis.tick_params(labelsize=7)
        axes[0].set_ylabel(f"{METRICS[metric].label} with the method", fontsize=8)
        figure.supxlabel(f"{METRICS[metric].label} per case without style transfer", fontsize=8)
        return figure

    return write_figure(draw, path)


def styles_grid(experiment: Experiment, outcome: Outcome, workspace: Path, target: str, path: Path) -> Path:
    """Training images in the target's style, one column per method, the reference and (where known) the truth."""
    prepared = outcome.prepared
    chosen = np.unique(np.linspace(0, len(prepared.train) - 1, GRID_ROWS).round().astype(int))
    columns: dict[str, list[np.ndarray]] = {"source": [prepared.train[i] for i in chosen]}
    for method, style in styled_pairs(experiment):
        if style == target:
            stored = work.load_pictures(styled_path(workspace, method, target).with_suffix(".npz"))
            columns[method.name] = [stored[prepared.train_names[i]] for i in chosen]
    if target in prepared.truths:
        columns["truth"] = [prepared.truths[target].clean[i] for i in chosen]
    empty = [None] * (len(columns) - 1)
    rows = [GridRow("reference", [_picture(prepared.references[target]), *empty])]  # it has no mask to draw
    for row, index in enumerate(chosen):
        cells = [_picture(images[row]) for images in columns.values()]
        rows.append(GridRow(prepared.train_names[index], cells, outline=prepared.train_masks[index]))
    return qualitative_grid(rows, list(columns), path)


def predictions_grid(entries: Entries, experiment: Experiment, outcome: Outcome, workspace: Path, path: Path) -> Path:
    """Worst, median and best target case (by the mean over methods): image, truth, and each method's map."""
    network, target = entries[0]["network"], entries[0]["target_name"]
    shown, metric = shown_methods(entries, 4), experiment.metrics[0]
    table, seed = ScoreTable(outcome.rows), min(experiment.seeds)
    cases = table.cases(target)
    per_case = {e["method"]: _by_style(table, network, e["method"], target, metric) for e in shown}
    order = np.argsort(np.nanmean([scores.mean(axis=0) for scores in per_case.values()], axis=0), kind="stable")
    ranks = {"worst": order[0], "median": order[len(order) // 2], "best": order[-1]}
    masks = test_masks(outcome.prepared, experiment, target)
    kinds = {method.name: method for method in experiment.methods}
    rows = []
    for rank, index in ranks.items():
        case, cells, captions = cases[index], [], []
        for entry in shown:
            style = f"{entry['method']}@{target}" if kinds[entry["method"]].needs_reference else entry["method"]
            maps = work.load_pictures(workspace / "cells" / f"{network}__{style}__{seed}.npz")
            cells.append(maps[f"{target}/{case}"])
            captions.append(f"{per_case[entry['method']][0, index]:.2f}")
        image = _picture(outcome.prepared.tests[target][case])
        row = GridRow(f"{rank}: {case}", [image, masks[case] * np.uint8(255), *cells], ("", "", *captions), masks[case])
        rows.append(row)
    return qualitative_grid(rows, ["image", "truth", *(entry["method"] for entry in shown)], path)


def _by_style(table: ScoreTable, network: str, method: str, target: str, metric: str) -> np.ndarray:
    found = (table.scores(network, method, style, target, metric) for style in (target, None))
    return next(scores for scores in found if scores is not None)


def _axis(name: str) -> str:
    return METRICS[name].label if METRICS[name].better == "higher" else f"1 - {METRICS[name].label}"


def _picture(image: np.ndarray) -> np.ndarray:
    return image[0] if image.shape[0] == 1 else np.ascontiguousarray(np.moveaxis(image, 0, -1))
