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
from nnunet_osasis.maps.field_of_view import spaced

PICTURE = "worst.png"

SHOWN_PX = 1024
"""Most rows and columns of an image that a picture shows."""


def as_picture(source: np.ndarray, full: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, ...]:
    """Three images ``(C, H, W)`` of any type as float32; of volumes ``(C, D, H, W)`` the slice that changed most.

    Of more than ``SHOWN_PX`` rows or columns evenly spaced ones are shown.
    """
    images = source, full, used
    if source.ndim == 4:
        step = -(-max(source.shape[-2:]) // SHOWN_PX)
        thin = source[..., ::step, ::step], full[..., ::step, ::step]
        changes = (np.abs(thin[1][:, i] - thin[0][:, i].astype(np.float32)).mean() for i in range(source.shape[1]))
        most = int(np.argmax(list(changes)))
        images = source[:, most], full[:, most], used[:, most]
    return tuple(spaced(image, SHOWN_PX).astype(np.float32) for image in images)


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
