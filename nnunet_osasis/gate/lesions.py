"""What happened to every marked lesion: its contrast to its surroundings, and the structure across its boundary."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

MIN_LESION_PX = 9
"""Number of pixels below which a component is too small to be scored as a lesion."""

VISIBLE = 0.5
"""Fisher distance below which the source does not show a lesion either: nothing can be lost there."""

MAX_BAND_PX = 8
"""Largest width in pixels of the band to either side of a boundary."""


def _components(mask: np.ndarray) -> Iterator[tuple[int, tuple[slice, ...], np.ndarray]]:
    """Components of every positive label of ``mask`` ``(D, H, W)``: label, box with a margin, component in the box."""
    for value in np.unique(mask[mask > 0]):
        labels, _ = ndimage.label(mask == value)
        for index, box in enumerate(ndimage.find_objects(labels), start=1):
            grown = (box[0], *(slice(max(0, s.start - MAX_BAND_PX), s.stop + MAX_BAND_PX) for s in box[1:]))
            component = labels[grown] == index
            if component.sum() >= MIN_LESION_PX:
                yield value, grown, component


def _reach(component: np.ndarray) -> int:
    """Half the width of the band: some 15 % of a lesion's diameter."""
    largest = component.sum(axis=(1, 2)).max()
    return int(np.clip(round(0.15 * 2 * np.sqrt(largest / np.pi)), 2, MAX_BAND_PX))


def _disc(reach: int) -> np.ndarray:
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return (x * x + y * y <= reach * reach)[None]  # slices are not joined: their distance is not theirs


def _fisher(inside: np.ndarray, outside: np.ndarray) -> float:
    """Distance of two samples ``(C, N)`` in their common spread; no affine map of the channels changes it."""
    pooled = (np.cov(inside, ddof=0) + np.cov(outside, ddof=0)).reshape(len(inside), -1) / 2
    pooled = pooled + (1e-6 + 1e-3 * np.trace(pooled) / len(pooled)) * np.eye(len(pooled))
    apart = inside.mean(axis=1) - outside.mean(axis=1)
    return float(np.sqrt(apart @ np.linalg.solve(pooled, apart)))


def _explained(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the variance of ``a`` ``(C, N)`` that an affine map of ``b`` explains; 1 where ``a`` is flat."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    within = b @ b.T / b.shape[1]
    within += (1e-6 + 1e-4 * np.trace(within) / len(within)) * np.eye(len(within))
    rest = a - np.linalg.solve(within, b @ a.T / b.shape[1]).T @ b
    return 1 - float((rest**2).mean() / ((a**2).mean() + 1e-6))


def lesion_scores(source: np.ndarray, stylized: np.ndarray, mask: np.ndarray) -> tuple[float, float, int] | None:
    """The worst lesion's scores.

    Args:
        source: ``(B, C, H, W)`` in [-1, 1], the slices of a volume or one image.
        stylized: the restyled image, likewise.
        mask: ``(B, H, W)``; every connected component of every positive value is a lesion.

    Returns:
        Contrast (Fisher distance of lesion and surroundings, as a share of the source's, at most 1), agreement across
        the boundary (variance in a band around it that the two images explain of each other) and the number of
        lesions scored; None when there is none that the source itself shows.
    """
    contrasts, edges = [], []
    for value, box, component in _components(mask):
        pictures = [np.moveaxis(image, 1, 0)[(slice(None), *box)] for image in (source, stylized)]
        disc = _disc(_reach(component))
        around = ndimage.binary_dilation(component, disc)
        outer, band = around & (mask[box] != value), around & ~ndimage.binary_erosion(component, disc)
        if not outer.any():
            continue
        shown, now = (_fisher(p[:, component], p[:, outer]) for p in pictures)
        if shown < VISIBLE:
            continue
        contrasts.append(min(1.0, now / shown))
        before, after = (p[:, band] for p in pictures)
        edges.append(min(_explained(before, after), _explained(after, before)))
    return (min(contrasts), min(edges), len(edges)) if edges else None
