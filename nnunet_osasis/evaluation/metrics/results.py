"""The files of an evaluation: tables, charts, summary. Each is whole or absent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.metrics.charts import (
    COLORS,
    MIN_AXES,
    OUTLINE,
    GridRow,
    forest_plot,
    qualitative_grid,
    radar_chart,
)
from nnunet_osasis.evaluation.metrics.folder import FolderScores, read_pair
from nnunet_osasis.evaluation.metrics.pairing import files_by_case
from nnunet_osasis.evaluation.metrics.protocol import METRICS
from nnunet_osasis.evaluation.metrics.score import mean_defined
from nnunet_osasis.evaluation.metrics.summary import mean_table, summarize, table_columns
from nnunet_osasis.evaluation.metrics.tables import cases_csv, latex_table, markdown_table
from nnunet_osasis.images.io import read_image
from nnunet_osasis.runtime.escaping import label_text
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.runtime.storage import atomic_write_bytes

RANKS = {"worst": 0.0, "median": 0.5, "best": 1.0}
"""Cases that the grid shows, and their place among all."""

FORMATS = (".png", ".svg")

CLASS_COLORS = [color for color in COLORS if color != OUTLINE]
"""Colors of the classes of label maps."""


def write_results(scores: FolderScores, output: Path, *, images: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """Write ``cases.csv``, ``summary.json``, ``table.md``, ``table.tex``, ``radar``, ``grid`` and ``differences``.

    The last three are PNG and SVG; ``differences`` shows two methods or more (see ``summary.paired_differences``).
    The radar is left out, and an older one removed, where fewer than three metrics lie in [0, 1]. ``summary.json`` is
    removed first and written last: where it is, everything else is of the same scores. Another process that writes
    there is waited for.

    Args:
        scores: what to write.
        output: folder of the results.
        images: pictures by case, for the grid.

    Returns:
        The summary.
    """
    summary = summarize(scores)
    rows, columns = grid_rows(scores, images or {})
    series, name = radar_series(summary), summary["protocol"]["name"]
    defined = [axis for axis in next(iter(series.values())) if not any(math.isnan(s[axis]) for s in series.values())]
    apart = difference_series(summary)
    with output_lock(output, "osasis-evaluate", wait=True):
        (output / "summary.json").unlink(missing_ok=True)
        atomic_write_bytes(output / "cases.csv", cases_csv(scores).encode())
        atomic_write_bytes(output / "table.md", markdown_table(summary).encode())
        atomic_write_bytes(output / "table.tex", latex_table(summary).encode())
        for suffix in FORMATS:
            path = output / f"radar{suffix}"
            if len(defined) >= MIN_AXES:
                radar_chart(series, path, title=f"{len(summary['cases'])} cases, protocol {name}")
            else:
                path.unlink(missing_ok=True)
            qualitative_grid(rows, columns, output / f"grid{suffix}")
            path = output / f"differences{suffix}"
            if apart:
                xlabel = (
                    f"difference to {label_text(summary['reference_method'])}, paired: mean, 95 % interval over cases"
                )
                forest_plot(apart, path, xlabel=xlabel)
            else:
                path.unlink(missing_ok=True)
        atomic_write_json(output / "summary.json", summary)
    return summary


def radar_series(summary: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Means of the table's columns that lie in [0, 1], as higher-is-better axes."""
    axes = {head: name for head, name in table_columns(summary).items() if METRICS[name].upper == 1}
    series: dict[str, dict[str, float]] = {}
    for method, means in mean_table(summary).items():
        series[method] = {}
        for head, name in axes.items():
            if METRICS[name].better == "higher":
                series[method][head] = means[name]
            else:
                series[method][f"1 - {head}"] = 1 - means[name]
    return series


def difference_series(summary: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Differences to the first method in the table's columns that lie in [0, 1] and are better when higher."""
    series: dict[str, dict[str, dict[str, float]]] = {}
    for head, name in table_columns(summary).items():
        if METRICS[name].upper == 1 and METRICS[name].better == "higher":
            rows = {method: values[name] for method, values in summary["differences"].items()}
            if known := {method: value for method, value in rows.items() if value["low"] is not None}:
                series[head] = known
    return series


def ranking_metric(scores: FolderScores) -> str:
    """Return the metric that decides which cases are shown: Dice if it was computed, else the first one."""
    return next((name for name in ("dice", "dice_mean") if name in scores.metrics), scores.metrics[0])


def shown_cases(scores: FolderScores) -> dict[str, str]:
    """``{case: rank}``: worst, median and best case by the methods' mean of the ranking metric. By rule, not by eye."""
    name = ranking_metric(scores)
    sign = -1 if METRICS[name].better == "lower" else 1
    by_case: dict[str, list[float]] = {}
    for score in scores.scores:
        if score.label == scores.labels[-1]:
            by_case.setdefault(score.case, []).append(sign * score.values[name])
    means = {case: mean_defined(values) for case, values in by_case.items()}
    ranked = sorted((mean, case) for case, mean in means.items() if not math.isnan(mean))
    chosen: dict[str, str] = {}
    for rank, place in RANKS.items():
        if ranked:
            chosen.setdefault(ranked[round(place * (len(ranked) - 1))][1], rank)
    return chosen or {case: "" for case in list(by_case)[:1]}


def grid_rows(scores: FolderScores, images: Mapping[str, Path]) -> tuple[list[GridRow], list[str]]:
    """Return the rows of the grid (the image if it is known, the truth, every method) and its column titles."""
    name = ranking_metric(scores)
    values = {(s.method, s.case): s.values[name] for s in scores.scores if s.label == scores.labels[-1]}
    rows = []
    for case, rank in shown_cases(scores).items():
        shown = {method: read_pair(scores.jobs[method, case]).maps for method in scores.methods}
        truths = {label: truth for label, (_, truth) in next(iter(shown.values())).items()}
        foreground = np.any(list(truths.values()), axis=0)
        level = _level(foreground)
        cells = [_picture(truths, level)]
        cells += [_picture({label: p for label, (p, _) in pairs.items()}, level) for pairs in shown.values()]
        captions = ["", *(f"{METRICS[name].label} {values[method, case]:.2f}" for method in scores.methods)]
        if images:
            cells.insert(0, _slice_of_image(images[case], foreground.shape, level))
            captions.insert(0, "")
        where = "" if level is None else f", slice {level}"
        outline = foreground if level is None else foreground[level]
        rows.append(GridRow(f"{rank}: {case}{where}".lstrip(": "), cells, captions, outline))
    return rows, [*(["image"] if images else []), "truth", *scores.methods]


def images_by_case(folder: Path, cases: list[str]) -> dict[str, Path]:
    """Return the image of every case, ``<case>`` or nnU-Net's ``<case>_0000``.

    Raises:
        OsasisError: an image is missing.
    """
    files = files_by_case(folder)
    names = {case: case if case in files else f"{case}_0000" for case in cases}
    if missing := [case for case, name in names.items() if name not in files]:
        raise OsasisError(
            "Every case needs an image (--images)",
            found=f"none for {', '.join(missing[:5])} ({len(missing)} in all) in {folder}",
            remedy="Complete the folder, or leave --images out.",
        )
    return {case: files[name] for case, name in names.items()}


def _level(foreground: np.ndarray) -> int | None:
    """The slice of a volume with most foreground (the middle one without any); None for an image."""
    if foreground.ndim == 2:
        return None
    areas = foreground.sum(axis=(1, 2))
    return int(areas.argmax()) if areas.any() else len(areas) // 2


def _picture(maps: Mapping[str, np.ndarray], level: int | None) -> np.ndarray:
    """One map as gray; several classes as colors on black, weighted by their maps."""
    planes = [(m if level is None else m[level]).astype(float) for m in maps.values()]
    if len(planes) == 1:
        return planes[0]
    picture = np.zeros((*planes[0].shape, 3))
    for i, plane in enumerate(planes):
        color = CLASS_COLORS[i % len(CLASS_COLORS)]
        picture += plane[..., None] * [int(color[k : k + 2], 16) for k in (1, 3, 5)]
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _slice_of_image(path: Path, shape: tuple[int, ...], level: int | None) -> np.ndarray:
    """An image to look at: 8-bit color as it is, everything else stretched between its 1st and 99th percentiles."""
    array = read_image(path).array
    if array.shape[1:] != shape:
        raise OsasisError("An image must have its reference's size", found=f"{array.shape[1:]} for {shape} in {path}")
    array = array if level is None else array[:, level]
    if len(array) == 3 and array.dtype == np.uint8:
        return np.moveaxis(array, 0, -1)
    low, high = np.percentile(array[0], (1, 99))
    return np.clip((array[0] - low) / (high - low), 0, 1) if high > low else np.zeros(array.shape[1:])
