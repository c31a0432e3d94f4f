"""The report's pictures: labelled, readable in print, in colours that colour-blind readers can tell apart."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from nnunet_osasis.runtime.storage import atomic_write_bytes

# Okabe and Ito's palette; line styles differ too, so that no reader depends on colour.
OUTLINES: dict[str, dict[str, Any]] = {
    "mask": {"color": "white", "linestyle": "-", "label": "true mask"},
    "before": {"color": "#E69F00", "linestyle": "--", "label": "trained without style transfer"},
    "after": {"color": "#56B4E9", "linestyle": "-", "label": "trained with OSASIS"},
}

FIRST, SECOND = "#0072B2", "#D55E00"


def before_after(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], path: Path) -> Path:
    """One row per case: pictures under the titles ``columns``, then the target picture with outlines.

    Each row has ``pictures`` (one RGB uint8 per title but the last), ``target`` (RGB uint8), ``mask``, ``before`` and
    ``after`` (masks, anything above 0), and ``caption``.
    """
    figure = Figure(figsize=(2.25 * len(columns), 2.42 * len(rows) + 0.55), dpi=150, layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for axis, picture in zip(line, [*row["pictures"], row["target"]], strict=True):
            axis.imshow(picture, interpolation="bicubic")
            axis.set(xticks=[], yticks=[])
        for name, look in OUTLINES.items():
            _outline(line[-1], row[name], look["color"], look["linestyle"])
        line[-1].set_xlabel(row["caption"], fontsize=8)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=9)
    figure.legend(
        handles=[Line2D([], [], **look) for look in OUTLINES.values()],
        loc="outside lower center",
        ncols=3,
        fontsize=8,
        facecolor="0.35",
        labelcolor="white",
        edgecolor="none",
    )
    return _save(figure, path)


def style_sheet(columns: Mapping[str, Sequence[np.ndarray]], path: Path) -> Path:
    """One titled column of RGB uint8 pictures per style, one row per image."""
    rows = max(len(column) for column in columns.values())
    figure = Figure(figsize=(1.6 * len(columns), 1.62 * rows + 0.3), dpi=150, layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for position, (title, column) in enumerate(columns.items()):
        axes[0, position].set_title(title, fontsize=8)
        for axis, picture in zip(axes[:, position], column, strict=True):
            axis.imshow(picture, interpolation="bicubic")
            axis.set(xticks=[], yticks=[])
    return _save(figure, path)


def dice_chart(summary: Sequence[Mapping[str, Any]], labels: Mapping[str, str], path: Path) -> Path:
    """Mean Dice, interval and single trainings of every method on both scanners."""
    figure = Figure(figsize=(7.2, 0.55 * len(summary) + 1.1), dpi=150, layout="constrained")
    axis = figure.subplots()
    for domain, name, colour, marker, shift in (
        ("source", "first scanner (in-domain)", FIRST, "o", -0.13),
        ("target", "second scanner", SECOND, "s", 0.13),
    ):
        means = np.array([row[domain]["mean"] for row in summary])
        spans = np.abs(np.array([[row[domain]["low"], row[domain]["high"]] for row in summary]).T - means)
        axis.errorbar(
            means, np.arange(len(summary)) + shift, xerr=spans, fmt=marker, color=colour, capsize=3, label=name
        )
        for place, row in enumerate(summary):
            single = row[f"{domain}_trainings"]
            axis.plot(
                single, [place + shift] * len(single), marker, color=colour, markerfacecolor="white", markersize=4
            )
    axis.set_yticks(np.arange(len(summary)), [labels[row["method"]] for row in summary])
    axis.invert_yaxis()
    axis.set_xlabel("Dice: mean with 95 % interval; small open marks: single trainings")
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return _save(figure, path)


def _outline(axis: Axes, mask: np.ndarray, colour: str, style: str) -> None:
    foreground = np.asarray(mask) > 0
    if foreground.any() and not foreground.all():
        lines = axis.contour(
            foreground.astype(float), levels=[0.5], colors=[colour], linestyles=[style], linewidths=1.4
        )
        lines.set(path_effects=[withStroke(linewidth=2.6, foreground="black", alpha=0.6)])  # visible on bright tissue


def _save(figure: Figure, path: Path) -> Path:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return atomic_write_bytes(path, buffer.getvalue())
