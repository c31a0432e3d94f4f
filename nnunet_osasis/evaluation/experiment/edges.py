"""Whether the edges of masks stayed where they were: masks are valid for a stylized image only while they do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from skimage.measure import find_contours

from nnunet_osasis.images.slices import evenly_spaced

REACH_PX, STEP_PX = 4.0, 0.25
"""How far along the normal an edge is searched, and in which steps."""

MIN_SLOPE = 2.0
"""Gray levels per pixel below which an edge is too weak to have a location."""

MAX_IMAGES = 24
"""Largest number of images that :func:`edge_shift` looks at."""


def edge_shift(
    originals: Sequence[np.ndarray], stylized: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> dict[str, float] | None:
    """Return ``{"median", "moved"}`` over the edge points of evenly spaced images; None where no edge is clear.

    ``median`` is the median shift in pixels, ``moved`` the share of points that moved by more than one pixel.
    """
    chosen = evenly_spaced(len(originals), MAX_IMAGES)
    shifts = np.concatenate([boundary_shifts(originals[i], stylized[i], masks[i]) for i in chosen])
    return {"median": float(np.median(shifts)), "moved": float((shifts > 1).mean())} if len(shifts) else None


def boundary_shifts(original: np.ndarray, stylized: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return how far the visible edge moved at each point of the mask's outline that has a clear edge, ``(N,)`` px.

    From every point the strongest gradient of smoothed luma is searched along the outline's normal, 4 px to either
    side, in both pictures; the shift is the distance between the two places.

    Args:
        original: picture ``(C, H, W)`` uint8, C 1 or 3.
        stylized: the same picture in another style.
        mask: ``(H, W)``, foreground above 0.
    """
    inside = mask > 0
    outlines = find_contours(inside.astype(float), 0.5)
    if not outlines:
        return np.zeros(0)
    points = np.concatenate(outlines)
    distance = gaussian_filter(distance_transform_edt(inside) - distance_transform_edt(~inside), 1.5)
    normals = np.stack([map_coordinates(part, points.T, order=1) for part in np.gradient(distance)], axis=1)
    lengths = np.linalg.norm(normals, axis=1)
    margin = REACH_PX + 1  # the central difference needs half a pixel beyond the search
    within = ((points > margin) & (points < np.array(mask.shape) - 1 - margin)).all(axis=1) & (lengths > 0.2)
    if not within.any():
        return np.zeros(0)
    points, normals = points[within], normals[within] / lengths[within, None]
    places, slopes = _strongest_edges(original, points, normals)
    moved, _ = _strongest_edges(stylized, points, normals)
    return np.abs(moved - places)[slopes > MIN_SLOPE]


def _strongest_edges(image: np.ndarray, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return offset along the normal and slope of the steepest luma change at each point."""
    weights = np.array([0.299, 0.587, 0.114]) if len(image) == 3 else np.ones(1)
    luma = gaussian_filter(np.tensordot(weights, image.astype(float), axes=1), 1.0)
    offsets = np.arange(-REACH_PX, REACH_PX + STEP_PX / 2, STEP_PX)
    where = points[:, None, :] + offsets[None, :, None] * normals[:, None, :]
    slopes = np.abs(np.gradient(map_coordinates(luma, np.moveaxis(where, -1, 0), order=1), STEP_PX, axis=1))
    best = slopes.argmax(axis=1)
    return offsets[best], slopes[np.arange(len(points)), best]
