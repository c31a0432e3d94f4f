"""Labeled picture grids, which trainings and commands show a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from nnunet_osasis.runtime.escaping import label_text, visible
from nnunet_osasis.runtime.storage import atomic_write

CELL = 1.9
"""Side of a picture's place in a grid, in inches."""


def picture(image: torch.Tensor) -> np.ndarray:
    """Turn ``(C, H, W)`` in [-1, 1] into ``(H, W, 3)`` in [0, 1]: three channels as color, else the first as gray."""
    values = ((image.float().cpu().clamp(-1, 1) + 1) / 2).numpy()
    return np.moveaxis(values if len(values) == 3 else np.repeat(values[:1], 3, axis=0), 0, -1)


def save_grid(path: str | Path, columns: Sequence[tuple[str, Sequence[torch.Tensor]]], *, title: str = "") -> Path:
    """Write a PNG with one titled column per entry and one row per image ``(C, H, W)`` in [-1, 1].

    A column shorter than the longest leaves its cells empty.

    Args:
        path: the file to write.
        columns: title and images of each column.
        title: shown above all columns.
    """
    from matplotlib import style

    # nnU-Net restyles matplotlib for its whole process: same images, same bytes. Names with $ are no formulas.
    with style.context(["default", {"text.parse_math": False}]):
        return atomic_write(path, lambda temporary: _draw(columns, title, temporary))


def _draw(columns: Sequence[tuple[str, Sequence[torch.Tensor]]], title: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(len(images) for _, images in columns)
    height = CELL * rows + 0.6
    figure = Figure(figsize=(CELL * len(columns), height))
    canvas = FigureCanvasAgg(figure)
    # one pair of axes for all pictures: a pair for each takes most of the time that drawing takes
    axes = figure.add_axes((0.0, 0.0, 1.0, CELL * rows / height))
    axes.set_axis_off()
    for column, (name, images) in enumerate(columns):
        axes.text(column + 0.5, -0.03, label_text(name), fontsize=9, ha="center", va="bottom")
        for row, image in enumerate(images):
            shown = picture(image)
            half = [0.48 * side / max(shown.shape[:2]) for side in shown.shape[:2]]
            extent = (column + 0.5 - half[1], column + 0.5 + half[1], row + 0.5 + half[0], row + 0.5 - half[0])
            axes.imshow(shown, interpolation="nearest", extent=extent, aspect="auto")
    axes.set_xlim(0, len(columns))
    axes.set_ylim(rows, 0)
    if title:
        figure.suptitle(visible(title), fontsize=10, y=1 - 0.06 / height, va="top")
    canvas.print_png(str(path), metadata={"Software": None})
