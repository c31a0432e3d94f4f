"""Charts of several methods: a radar of their metrics and a grid of their masks, for print and color-blind readers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.escaping import label_text
from nnunet_osasis.runtime.storage import atomic_write

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette without yellow and black; lines and marks differ too, so that no reader depends on color."""

COLOURS = COLORS

LINES = ("-", "--", "-.", ":")

MARKS = ("o", "s", "^", "D", "v", "P")

OUTLINE = "#D55E00"
"""Color of the true mask's outline."""

MIN_AXES = 3
"""A radar chart of fewer axes has no area."""


@dataclass(frozen=True, eq=False)
class GridRow:
    """One line of a :func:`qualitative_grid`.

    Attributes:
        label: text at its left.
        cells: one picture per column: bool or float ``(H, W)`` in [0, 1], uint8 ``(H, W)`` or ``(H, W, 3)``; None
            leaves the place empty.
        captions: texts below the cells; may be empty.
        outline: mask ``(H, W)`` whose outline is drawn on every cell, if any.
    """

    label: str
    cells: Sequence[np.ndarray | None]
    captions: Sequence[str] = ()
    outline: np.ndarray | None = None


def radar_chart(series: Mapping[str, Mapping[str, float]], path: str | Path, *, title: str | None = None) -> Path:
    """Write one closed line per series over common axes from 0 (center) to 1, higher is better (use 1 - MAE).

    Axes on which a series is NaN are left out and named below the chart.

    Args:
        series: ``{name: {axis: value}}``; all with the same axes, at least three of them.
        path: ``.png`` or ``.svg``.
        title: text above the chart.

    Raises:
        OsasisError: for values outside [0, 1] (E-measures a little above 1 are drawn at 1), different axes, and fewer
            than three axes that all series have.
    """
    if not series or any(list(s) != list(next(iter(series.values()))) for s in series.values()):
        raise OsasisError("Every line of a radar chart needs the same axes", found=[list(s) for s in series.values()])
    axes = list(next(iter(series.values())))
    drawn = [axis for axis in axes if all(not math.isnan(s[axis]) for s in series.values())]
    outside = [f"{axis} {s[axis]:g}" for s in series.values() for axis in drawn if not -1e-6 <= s[axis] <= 1.02]
    if outside:
        raise OsasisError("Axes of a radar chart must lie in [0, 1]", found=", ".join(outside), remedy="Rescale them.")
    if len(drawn) < MIN_AXES:
        raise OsasisError(f"A radar chart needs at least {MIN_AXES} defined axes", found=", ".join(drawn) or "none")
    left_out = [axis for axis in axes if axis not in drawn]

    def draw() -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.6, 5.6 + 0.25 * math.ceil(len(series) / 2)), dpi=150, layout="constrained")
        axis: Any = figure.add_subplot(projection="polar")
        axis.set_theta_offset(math.pi / 2)
        axis.set_theta_direction(-1)
        angles = np.linspace(0, 2 * math.pi, len(drawn), endpoint=False)
        for i, (name, values) in enumerate(series.items()):
            radii = [float(np.clip(values[key], 0, 1)) for key in drawn]
            color = COLORS[i % len(COLORS)]
            axis.plot(
                [*angles, angles[0]], [*radii, radii[0]], color=color, linestyle=LINES[i % len(LINES)],
                marker=MARKS[i % len(MARKS)], markersize=4.5, linewidth=1.6, label=label_text(name),
            )  # fmt: skip
            axis.fill(angles, radii, color=color, alpha=0.06)
        axis.set_ylim(0, 1)
        axis.set_yticks([0.2, 0.4, 0.6, 0.8, 1.0], ["0.2", "0.4", "0.6", "0.8", "1"], fontsize=8, color="0.35")
        axis.set_rlabel_position(180 / len(drawn))
        axis.set_xticks(angles, [name.replace(" (", "\n(") for name in drawn], fontsize=10)
        for label, angle in zip(axis.get_xticklabels(), angles, strict=True):
            side = math.sin(angle)  # names grow away from the chart
            label.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
        axis.tick_params(axis="x", pad=8)
        axis.grid(color="0.85")
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
        if left_out:
            figure.supxlabel(f"not shown (undefined): {', '.join(left_out)}", fontsize=8)
        if title:
            figure.suptitle(label_text(title, 90), fontsize=11)
        return figure

    return write_figure(draw, Path(path))


def forest_plot(
    series: Mapping[str, Mapping[str, Mapping[str, float]]], path: str | Path, *, xlabel: str, title: str | None = None
) -> Path:
    """Write differences with their intervals, one line per row, and a line at no difference.

    Args:
        series: ``{series: {row: {"mean", "low", "high"}}}``; a row may be missing in some series.
        path: ``.png`` or ``.svg``.
        xlabel: what is shown, and in which unit.
        title: text above the chart.

    Raises:
        OsasisError: there is no row.
    """
    names = list(dict.fromkeys(name for rows in series.values() for name in rows))
    if not names:
        raise OsasisError("A chart of differences needs at least one of them", found="none")

    def draw() -> Any:
        from matplotlib.figure import Figure

        thick = 0.22 * len(series) + 0.2
        figure = Figure(figsize=(7.2, thick * len(names) + 1.3), dpi=150, layout="constrained")
        axis = figure.subplots()
        axis.axvline(0, color="0.4", linewidth=1)
        for i, (label, rows) in enumerate(series.items()):
            shown = [name for name in names if name in rows]
            offset = 0.7 * ((i + 0.5) / len(series) - 0.5)
            places = np.array([names.index(name) for name in shown]) + offset
            means = np.array([rows[name]["mean"] for name in shown])
            bounds = np.array([[rows[name]["low"], rows[name]["high"]] for name in shown]).reshape(-1, 2).T
            axis.errorbar(
                means, places, xerr=np.abs(bounds - means), fmt=MARKS[i % len(MARKS)], color=COLORS[i % len(COLORS)],
                capsize=3, markersize=5, label=label_text(label),
            )  # fmt: skip
        axis.set_yticks(range(len(names)), [label_text(name) for name in names], fontsize=8)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_xlabel(xlabel, fontsize=8)
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        figure.legend(loc="outside lower center", ncols=min(4, len(series)), frameon=False, fontsize=8)
        if title:
            figure.suptitle(label_text(title, 90), fontsize=10)
        return figure

    return write_figure(draw, Path(path))


def qualitative_grid(
    rows: Sequence[GridRow], columns: Sequence[str], path: str | Path, *, title: str | None = None
) -> Path:
    """Write pictures under the titles ``columns``, one line per row; ``path`` ends in ``.png`` or ``.svg``."""
    if not rows or any(len(row.cells) != len(columns) for row in rows):
        raise OsasisError(
            "Every row of a grid needs one cell per column",
            found=f"{[len(row.cells) for row in rows]} for {len(columns)} columns",
        )

    def draw() -> Any:
        from matplotlib.figure import Figure

        tall = [_aspect(row) for row in rows]
        size = (1.75 * len(columns) + 0.4, sum(1.75 * t + 0.35 for t in tall) + (0.8 if title else 0.5))
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        axes = figure.subplots(len(rows), len(columns), squeeze=False, gridspec_kw={"height_ratios": tall})
        for line, row in zip(axes, rows, strict=True):
            for i, (axis, cell) in enumerate(zip(line, row.cells, strict=True)):
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                if cell is not None:
                    _show(axis, cell, row.outline)
                if i < len(row.captions):
                    axis.set_xlabel(label_text(row.captions[i]), fontsize=8)
            line[0].set_ylabel(label_text(row.label), fontsize=8)
        for axis, name in zip(axes[0], columns, strict=True):
            axis.set_title(label_text(name), fontsize=9)
        if any(row.outline is not None and row.outline.any() for row in rows):
            figure.supxlabel("orange outline: true mask", fontsize=8, color="0.25")
        if title:
            figure.suptitle(label_text(title, 90), fontsize=10)
        return figure

    return write_figure(draw, Path(path))


def _aspect(row: GridRow) -> float:
    shapes = [cell.shape for cell in row.cells if cell is not None]
    return float(np.clip(shapes[0][0] / shapes[0][1], 0.4, 2.5)) if shapes else 1.0


def _show(axis: Any, cell: np.ndarray, outline: np.ndarray | None) -> None:
    picture = cell / 255 if cell.dtype == np.uint8 else cell.astype(float)
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    if outline is not None and outline.any() and not outline.all():
        axis.contour(outline.astype(float), levels=[0.5], colors=[OUTLINE], linewidths=1.1)


def _settle(figure: Any) -> None:
    """Lay the figure out once and round: the solver's last digits change from run to run, and SVG names hash them."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in figure.axes:
        axis.set_position([round(value, 4) for value in axis.get_position(original=True).bounds])


def write_figure(draw: Callable[[], Any], path: Path) -> Path:
    """Write the figure that ``draw`` returns as ``.png`` or ``.svg``: same figure, same bytes.

    It is drawn away from the process's matplotlib settings, and shows names as they are: a dollar sign begins no
    formula.

    Raises:
        OsasisError: the path has another ending.
    """
    if path.suffix not in (".png", ".svg"):
        raise OsasisError("A chart must be a .png or .svg file", found=path.name)
    from matplotlib import rc_context, style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    settings: Any = {"svg.hashsalt": "nnunet-osasis", "svg.fonttype": "none", "text.parse_math": False}
    with style.context("default"), rc_context(settings):
        figure = draw()
        agg = FigureCanvasAgg(figure)
        _settle(figure)
        if path.suffix == ".svg":
            canvas = FigureCanvasSVG(figure)
            return atomic_write(path, lambda temporary: canvas.print_svg(str(temporary), metadata={"Date": None}))
        return atomic_write(path, lambda temporary: agg.print_png(str(temporary), metadata={"Software": None}))
