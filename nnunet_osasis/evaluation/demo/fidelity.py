"""How good stylized pictures are by themselves: distance to the known truth, and whether polyp edges stayed put."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from skimage.measure import find_contours

from nnunet_osasis.evaluation.report.statistics import mean_interval
from nnunet_osasis.maps.distance import ciede2000, psnr

REACH, STEP = 4.0, 0.25  # how far along the normal an edge is searched, in pixels

LEAST_EDGE = 2.0  # grey levels per pixel; weaker edges have no location to speak of


def boundary_shifts(original: np.ndarray, stylized: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """How far the polyp's visible edge moved, in pixels, at each boundary point that has a clear edge, ``(N,)``.

    From every point of the mask's outline the strongest gradient of smoothed luma is searched along the normal,
    4 px to either side, in both pictures; the shift is the distance between the two finds.

    Args:
        original, stylized: RGB ``(H, W, 3)`` uint8. mask: ``(H, W)``, foreground above 0.
    """
    inside = mask > 0
    outlines = find_contours(inside.astype(float), 0.5)
    if not outlines:
        return np.zeros(0)
    points = np.concatenate(outlines)
    distance = gaussian_filter(distance_transform_edt(inside) - distance_transform_edt(~inside), 1.5)
    normals = np.stack([map_coordinates(part, points.T, order=1) for part in np.gradient(distance)], axis=1)
    lengths = np.linalg.norm(normals, axis=1)
    # Half a pixel beyond the search is needed for the central difference.
    margin = REACH + 1
    within = ((points > margin) & (points < np.array(mask.shape) - 1 - margin)).all(axis=1) & (lengths > 0.2)
    points, normals = points[within], normals[within] / lengths[within, None]
    places, strengths = _strongest_edges(original, points, normals)
    moved, _ = _strongest_edges(stylized, points, normals)
    return np.abs(moved - places)[strengths > LEAST_EDGE]


def _strongest_edges(image: np.ndarray, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Offset along the normal and strength of the steepest luma change at each point."""
    luma = gaussian_filter(image.astype(float) @ np.array([0.299, 0.587, 0.114]), 1.0)
    offsets = np.arange(-REACH, REACH + STEP / 2, STEP)
    where = points[:, None, :] + offsets[None, :, None] * normals[:, None, :]
    if not len(points):
        return np.zeros(0), np.zeros(0)
    slopes = np.abs(np.gradient(map_coordinates(luma, np.moveaxis(where, -1, 0), order=1), STEP, axis=1))
    best = slopes.argmax(axis=1)
    return offsets[best], slopes[np.arange(len(points)), best]


def fidelity_row(
    originals: Mapping[str, np.ndarray],
    stylized: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    truths: Mapping[str, np.ndarray] | None,
) -> dict[str, object]:
    """One method's figures over the images in ``stylized``; ``truths`` is None for a user's own images.

    Keys: ``psnr`` and ``ciede2000`` (mean with interval, or None), ``boundary_median`` (pixels), ``boundary_moved``
    (share of boundary points that moved more than 1 px), ``images``.
    """
    shifts = np.concatenate([boundary_shifts(originals[case], stylized[case], masks[case]) for case in stylized])
    row: dict[str, object] = {
        "psnr": None,
        "ciede2000": None,
        "boundary_median": float(np.median(shifts)) if len(shifts) else None,
        "boundary_moved": float((shifts > 1).mean()) if len(shifts) else None,
        "images": len(stylized),
    }
    if truths is not None:
        row["psnr"] = mean_interval([psnr(stylized[case], truths[case]) for case in stylized])
        first = {case: (np.moveaxis(stylized[case], -1, 0), np.moveaxis(truths[case], -1, 0)) for case in stylized}
        row["ciede2000"] = mean_interval([ciede2000(*pair) for pair in first.values()])
    return row
