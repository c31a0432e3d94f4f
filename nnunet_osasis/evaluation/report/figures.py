"""The report's charts and pictures, as files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.evaluation.experiment.config import Experiment
from nnunet_osasis.evaluation.experiment.data import test_masks
from nnunet_osasis.evaluation.experiment.methods import channels_last
from nnunet_osasis.evaluation.experiment.runner import Outcome, styled_pairs, styled_path
from nnunet_osasis.evaluation.experiment.tasks import load_pictures
from nnunet_osasis.evaluation.metrics.charts import (
    COLOURS,
    MARKS,
    GridRow,
    forest_plot,
    qualitative_grid,
    radar_chart,
    write_figure,
)
from nnunet_osasis.evaluation.metrics.protocol import METRICS
from nnunet_osasis.evaluation.report.summary import ScoreTable
from nnunet_osasis.images.slices import evenly_spaced

RADAR_LINES, SCATTER_PANELS, GRID_METHODS, GRID_ROWS = 5, 4, 4, 5
"""Largest numbers of methods and of images that the charts have room for."""

QUARTILES = (0.25, 0.5, 0.75)
"""Quantiles of the score without style transfer, at which the before-and-after picture shows cases."""

Entries = Sequence[Mapping[str, Any]]
"""Summary entries of one network and target; the baseline comes first."""


def shown_methods(entries: Entries, most: int) -> list[Mapping[str, Any]]:
    """Return no style transfer, every stylizer, the best free controls and the upper bound, ``most`` in all."""
    none = [entry for entry in entries if entry["role"] == "baseline"]
    stylizers = [entry for entry in entries if entry["role"] == "stylizer"][: most - 2]
    bound = [entry for entry in entries if entry["kind"] == "truth"][:1]
    controls = sorted((e for e in entries if e["role"] == "control"), key=lambda e: -e["target"]["mean"])
    room = max(1, most - len(none) - len(stylizers) - len(bound))
    return [*none, *controls[:room], *stylizers, *bound][:most]


def radar(entries: Entries, path: Path, title: str) -> Path | None:
    """Draw the metrics in [0, 1], higher is better; return None with fewer than three of them."""
    names = [name for name in entries[0]["metrics"] if METRICS[name].upper == 1 and METRICS[name].better]
    series = {}
    for entry in shown_methods(entries, RADAR_LINES):
        axes = {}
        for name in names:
            value, metric = entry["metrics"][name], METRICS[name]
            value = float("nan") if value is None else value
            lower = metric.better == "lower"
            axes[f"1 - {metric.label}" if lower else metric.label] = 1 - value if lower else value
        series[entry["label"]] = axes
    usable = [axis for axis in next(iter(series.values())) if all(np.isfinite(s[axis]) for s in series.values())]
    return radar_chart(series, path, title=title) if len(usable) >= 3 else None


def forest(entries: Entries, metric: str, path: Path) -> Path | None:
    """Draw every method's paired difference to no style transfer on both sites; None without a method."""
    compared = [entry for entry in entries if entry["role"] != "baseline"]
    if not compared:
        return None
    series = {
        site: {entry["label"]: {key: 100 * entry[test][key] for key in ("mean", "low", "high")} for entry in compared}
        for site, test in ((f"on {entries[0]['target_name']}", "test"), ("in-domain", "source_test"))
    }
    xlabel = f"{METRICS[metric].label} minus that without style transfer, points: mean, 95 % interval of the test"
    return forest_plot(series, path, xlabel=xlabel)


def score_chart(entries: Entries, metric: str, path: Path) -> Path:
    """Draw the mean score, its interval and the single trainings of every method, in-domain and on the target."""

    def draw() -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.2, 0.55 * len(entries) + 1.1), dpi=150, layout="constrained")
        axis, rows = figure.subplots(), np.arange(len(entries))
        for site, seeds, label, color, mark, offset in (
            ("source", "source_per_seed", "in-domain", COLOURS[0], MARKS[0], -0.13),
            ("target", "per_seed", entries[0]["target_name"], COLOURS[1], MARKS[1], 0.13),
        ):
            means = np.array([entry[site]["mean"] for entry in entries])
            bounds = np.array([[entry[site]["low"], entry[site]["high"]] for entry in entries]).T
            axis.errorbar(
                means, rows + offset, xerr=np.abs(bounds - means), fmt=mark, color=color, capsize=3, label=label
            )
            for row, entry in enumerate(entries):
                places = [row + offset] * len(entry[seeds])
                axis.plot(entry[seeds], places, mark, color=color, markerfacecolor="white", markersize=4, zorder=3)
        axis.set_yticks(rows, [entry["label"] for entry in entries], fontsize=8)
        axis.invert_yaxis()
        axis.set_xlabel(f"{METRICS[metric].label}: mean with 95 % interval; open marks: single trainings", fontsize=8)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
        return figure

    return write_figure(draw, path)


def scatter(entries: Entries, table: ScoreTable, metric: str, path: Path) -> Path | None:
    """Draw the score per target case without style transfer against that with it, one panel per method."""
    panels = [entry for entry in shown_methods(entries, SCATTER_PANELS + 1) if entry["role"] != "baseline"]
    if not panels:
        return None
    before = table.scores_of(entries[0], metric).mean(axis=0)

    def draw() -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(2.6 * len(panels) + 0.4, 3.1), dpi=150, layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharex=True, sharey=True)[0]
        for index, (axis, entry) in enumerate(zip(axes, panels, strict=True)):
            axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
            axis.scatter(
                before, table.scores_of(entry, metric).mean(axis=0), s=14, alpha=0.75,
                color=COLOURS[index % len(COLOURS)], marker=MARKS[index % len(MARKS)], linewidths=0,
            )  # fmt: skip
            axis.set_title(entry["label"], fontsize=8, wrap=True)
            axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
            axis.tick_params(labelsize=7)
        axes[0].set_ylabel(f"{METRICS[metric].label} with the method", fontsize=8)
        figure.supxlabel(f"{METRICS[metric].label} per case without style transfer", fontsize=8)
        return figure

    return write_figure(draw, path)


def styles_grid(experiment: Experiment, outcome: Outcome, workspace: Path, target: str, path: Path) -> Path:
    """Draw training images in the target's style, one column per method, the reference and the truth if known."""
    prepared = outcome.prepared
    chosen = evenly_spaced(len(prepared.train), GRID_ROWS)
    columns: dict[str, list[np.ndarray]] = {"source": [prepared.train[i] for i in chosen]}
    for method, style in styled_pairs(experiment):
        if style == target:
            stored = load_pictures(styled_path(workspace, method, target).with_suffix(".npz"))
            columns[method.name] = [stored[prepared.train_names[i]] for i in chosen]
    if target in prepared.truths:
        columns["truth"] = [prepared.truths[target].clean[i] for i in chosen]
    empty = [None] * (len(columns) - 1)
    rows = [GridRow("reference", [channels_last(prepared.references[target]), *empty])]  # it has no mask to draw
    for row, index in enumerate(chosen):
        cells = [channels_last(images[row]) for images in columns.values()]
        rows.append(GridRow(prepared.train_names[index], cells, outline=prepared.train_masks[index]))
    return qualitative_grid(rows, list(columns), path)


def predictions_grid(entries: Entries, experiment: Experiment, outcome: Outcome, workspace: Path, path: Path) -> Path:
    """Draw the worst, median and best target case (by the mean over methods): image, truth, and each method's map."""
    target, shown, metric = entries[0]["target_name"], shown_methods(entries, GRID_METHODS), experiment.metrics[0]
    table = ScoreTable(outcome.rows)
    per_case = [table.scores_of(entry, metric) for entry in shown]
    order = np.argsort(np.nanmean([scores.mean(axis=0) for scores in per_case], axis=0), kind="stable")
    cases, masks = table.cases(target), test_masks(outcome.prepared, experiment, target)
    maps = [_maps(entry, experiment, workspace) for entry in shown]
    rows = []
    for rank, index in {"worst": order[0], "median": order[len(order) // 2], "best": order[-1]}.items():
        case = cases[index]
        image, truth = channels_last(outcome.prepared.tests[target][case]), masks[case] * np.uint8(255)
        captions = ("", "", *(f"{scores[0, index]:.2f}" for scores in per_case))
        cells = [image, truth, *(of_method[f"{target}/{case}"] for of_method in maps)]
        rows.append(GridRow(f"{rank}: {case}", cells, captions, masks[case]))
    return qualitative_grid(rows, ["image", "truth", *(entry["method"] for entry in shown)], path)


def before_after(
    entries: Entries, experiment: Experiment, outcome: Outcome, workspace: Path, path: Path
) -> Path | None:
    """Draw training images before and after the stylizer, beside target cases with the masks of both trainings.

    The target cases are those at the quartiles of the score without style transfer. Return None without a stylizer.
    """
    stylizer = next((entry for entry in entries if entry["role"] == "stylizer"), None)
    if stylizer is None:
        return None
    target, metric, prepared = stylizer["target_name"], experiment.metrics[0], outcome.prepared
    pair, table = (entries[0], stylizer), ScoreTable(outcome.rows)
    scores = [table.scores_of(entry, metric)[0] for entry in pair]
    chosen = typical_cases(scores[0])
    shown = np.linspace(0, len(prepared.train) - 1, len(chosen)).round().astype(int)
    stored = load_pictures(workspace / "styled" / f"{stylizer['method']}@{target}.npz")
    columns = {
        "source image": [prepared.train[i] for i in shown],
        "stylized": [stored[prepared.train_names[i]] for i in shown],
    }
    if target in prepared.truths:
        columns[f"{target} (truth)"] = [prepared.truths[target].clean[i] for i in shown]
    cases = [table.cases(target)[index] for index in chosen]
    columns[f"masks on {target}"] = [prepared.tests[target][case] for case in cases]
    masks, maps = test_masks(prepared, experiment, target), [_maps(entry, experiment, workspace) for entry in pair]
    # Okabe and Ito's colors; the lines differ too, so that no reader depends on color.
    looks: tuple[dict[str, Any], ...] = (
        {"color": "white", "linestyle": "-", "label": "true mask"},
        {"color": "#E69F00", "linestyle": "--", "label": f"trained with {pair[0]['label']}"},
        {"color": "#56B4E9", "linestyle": "-", "label": f"trained with {pair[1]['label']}"},
    )

    def draw() -> Any:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D

        size = (2.25 * len(columns), 2.42 * len(cases) + 0.55)
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        axes = figure.subplots(len(cases), len(columns), squeeze=False)
        for column, (title, images) in enumerate(columns.items()):
            axes[0, column].set_title(title, fontsize=9)
            for axis, image in zip(axes[:, column], images, strict=True):
                axis.imshow(channels_last(image), cmap="gray", vmin=0, vmax=255, interpolation="bicubic")
                axis.set(xticks=[], yticks=[])
        for axis, case, index in zip(axes[:, -1], cases, chosen, strict=True):
            predicted = [of_method[f"{target}/{case}"] >= 128 for of_method in maps]
            for look, mask in zip(looks, (masks[case], *predicted), strict=True):
                _outline(axis, mask, look)
            label = METRICS[metric].label
            axis.set_xlabel(f"{label} {scores[0][index]:.2f} before, {scores[1][index]:.2f} after", fontsize=8)
        handles = [Line2D([], [], **look) for look in looks]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=3, fontsize=8, facecolor="0.35", labelcolor="white"
        )
        return figure

    return write_figure(draw, path)


def typical_cases(scores: np.ndarray) -> list[int]:
    """Return the indices of the cases at the quartiles of their scores ``(cases,)``: chosen by rule, not by eye."""
    order = np.argsort(scores, kind="stable")
    return list(dict.fromkeys(int(order[round(q * (len(order) - 1))]) for q in QUARTILES))


def _outline(axis: Any, mask: np.ndarray, look: Mapping[str, Any]) -> None:
    """Draw a mask's outline with a dark seam, visible on bright tissue."""
    from matplotlib.patheffects import withStroke

    if mask.any() and not mask.all():
        style = {"colors": [look["color"]], "linestyles": [look["linestyle"]], "linewidths": 1.4}
        lines = axis.contour(mask.astype(float), levels=[0.5], **style)
        lines.set(path_effects=[withStroke(linewidth=2.6, foreground="black", alpha=0.6)])


def _maps(entry: Mapping[str, Any], experiment: Experiment, workspace: Path) -> dict[str, np.ndarray]:
    """Return the maps of a method's first training, by ``test/case``."""
    method = next(method for method in experiment.methods if method.name == entry["method"])
    style = f"{method.name}@{entry['target_name']}" if method.needs_reference else method.name
    return load_pictures(workspace / "cells" / f"{entry['network']}__{style}__{min(experiment.seeds)}.npz")
