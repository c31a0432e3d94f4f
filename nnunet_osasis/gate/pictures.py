"""The worst and the rejected cases, for a person to look at."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from nnunet_osasis.gate.local import smooth, unexplained
from nnunet_osasis.images.grids import save_grid
from nnunet_osasis.images.intensity import IntensityRange, to_unit

PICTURE = "worst.png"


def as_picture(source: np.ndarray, full: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, ...]:
    """Three images ``(C, H, W)``; of volumes ``(C, D, H, W)`` copies of the slice that changed most."""
    if source.ndim == 3:
        return source, full, used
    changed = int(np.argmax([np.abs(full[:, i] - source[:, i]).mean() for i in range(source.shape[1])]))
    return tuple(np.array(image[:, changed]) for image in (source, full, used))


def save_worst(
    path: str | Path,
    cases: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    intensity: IntensityRange,
) -> Path:
    """A row for every case: the source, the image at full strength, what was used, and where structure went missing or
    came from nowhere at full strength (white).

    Args:
        cases: titles, and three arrays ``(C, H, W)`` in native units (:func:`as_picture`).
    """
    columns: dict[str, list[torch.Tensor]] = {
        name: [] for name in ("source", "full strength", "used", "lost or invented")
    }
    for _, source, full, used in cases:
        bounds = intensity.bounds(source)
        units = [to_unit(image, bounds) for image in (source, full, used)]
        lost, invented = unexplained(smooth(units[0][None]), smooth(units[1][None]))
        where = F.interpolate(torch.maximum(lost, invented)[None], size=units[0].shape[1:], mode="bilinear")[0]
        for name, image in zip(columns, (*map(np.ascontiguousarray, units), 2 * where - 1), strict=True):
            columns[name].append(torch.as_tensor(image))
    title = ";  ".join(f"{row + 1}: {name}" for row, (name, *_) in enumerate(cases))
    return save_grid(path, list(columns.items()), title=textwrap.fill(title, 100))
