"""Weighted F-measure (Margolin et al., CVPR 2014): errors near the object and beside other errors weigh less.

Same numbers as the authors' Matlab code and PySODMetrics, with less work: distances only where there is an
error, the 7 x 7 Gaussian as two 1D ones, and that only around the object.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from nnunet_osasis.metrics.case import Case

EPS = np.spacing(1)
BETA = 1.0
RADIUS, SIGMA = 3, 5.0
HALVING = 5.0  # pixels over which the extra weight of a false alarm loses half of what is left to it


def _kernel() -> np.ndarray:
    weights = np.exp(-(np.arange(-RADIUS, RADIUS + 1) ** 2) / (2 * SIGMA**2))
    return weights / weights.sum()


def weighted_f(case: Case) -> dict[str, float]:
    """``wf``; the protocol's ``undefined`` for a truth without foreground."""
    if case.positives == 0:
        return {"wf": case.protocol.undefined}
    # Where neither side has anything there is no error, and no pixel is nearer to the object than its own box.
    window = _box(case.truth | (case.prediction > 0))
    truth = case.truth[window]
    error = np.abs(case.prediction[window] - truth)
    nearest = ndimage.distance_transform_edt(~truth, return_distances=False, return_indices=True)
    inside = _dependent_errors(error, truth, nearest)
    outside = _weighted_false_alarms(error, truth, nearest)
    hit = case.positives - inside
    recall, precision = hit / case.positives, hit / (hit + outside + EPS)
    return {"wf": float((1 + BETA) * recall * precision / (recall + BETA * precision + EPS))}


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The part of the image around ``mask`` that the Gaussian reaches."""
    return tuple(
        slice(max(0, int(found[0]) - RADIUS), int(found[-1]) + RADIUS + 1)
        for found in (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    )


def _dependent_errors(error: np.ndarray, truth: np.ndarray, nearest: np.ndarray) -> float:
    """Sum over the object of the smaller of a pixel's error and its neighbourhood's.

    In the neighbourhood a background pixel stands for the nearest object pixel, so that only the object's errors count.
    """
    window = _box(truth)
    rows, columns = nearest[(slice(None), *window)]
    spread = error[rows, columns]  # an object pixel is its own nearest one
    for axis in (0, 1):
        spread = ndimage.correlate1d(spread, _kernel(), axis=axis, mode="constant")
    near = truth[window]
    return float(np.minimum(spread[near], error[window][near]).sum())


def _weighted_false_alarms(error: np.ndarray, truth: np.ndarray, nearest: np.ndarray) -> float:
    """Sum over the background of the error times ``2 - 0.5 ** (distance / 5)``."""
    rows, columns = np.nonzero((error > 0) & ~truth)
    down, right = (nearest[axis][rows, columns] - at for axis, at in ((0, rows), (1, columns)))
    distance = np.sqrt((down * down + right * right).astype(float))
    return float(np.dot(error[rows, columns], 2 - np.exp(np.log(0.5) / HALVING * distance)))
