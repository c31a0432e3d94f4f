"""Labelled picture grids: what the trainings and commands show a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from nnunet_osasis.storage import atomic_write


def picture(image: torch.Tensor) -> np.ndarray:
    """``(C, H, W)`` in [-1, 1] as ``(H, W, 3)`` in [0, 1]: three channels as colour, else the first as grey."""
    values = ((image.float().cpu().clamp(-1, 1) + 1) / 2).numpy()
    return np.moveaxis(values if len(values) == 3 else np.repeat(values[:1], 3, axis=0), 0, -1)


def save_grid(path: str | Path, columns: Sequence[tuple[str, Sequence[torch.Tensor]]], *, title: str = "") -> Path:
    """Write a PNG with one titled column per entry and one row per image ``(C, H, W)`` in [-1, 1].

    A column shorter than the longest leaves its cells empty.
    """
    from matplotlib import style

    with style.context("default"):  # nnU-Net restyles matplotlib for its whole process: same images, same bytes
        return atomic_write(path, lambda temporary: _draw(columns, title, temporary))


def _draw(columns: Sequence[tuple[str, Sequence[torch.Tensor]]], title: str, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(len(images) for _, images in columns)
    figure = Figure(figsize=(1.9 * len(columns), 1.9 * rows + 0.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, images) in enumerate(columns):
        axes[0][column].set_title(name, fontsize=9)
        for row in range(rows):
            axes[row][column].set_axis_off()
            if row < len(images):
                axes[row][column].imshow(picture(images[row]), interpolation="nearest")
    if title:
        figure.suptitle(title, fontsize=10)
    canvas.print_png(str(path), metadata={"Software": None})
