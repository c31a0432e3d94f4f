"""Dice, IoU, specificity and mean absolute error, at one threshold or averaged over all.

Weighted F-measure (Margolin et al., CVPR 2014): errors near the object and beside other errors weigh less.

Same numbers as the authors' Matlab code and PySODMetrics, with less work: distances only where there is an
error, the 7 x 7 Gaussian as two 1D ones, and that only around the object.

S-measure: structural similarity of a map and its truth (Fan et al., ICCV 2017).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from nnunet_osasis.evaluation.metrics.case import Case

Counts = np.ndarray | int


def _ratio(numerator: Counts, denominator: Counts, otherwise: float) -> np.ndarray:
    """``numerator / denominator``, and ``otherwise`` where the denominator is 0."""
    bottom = np.asarray(denominator, dtype=float)
    return np.divide(numerator, bottom, out=np.full(bottom.shape, otherwise), where=bottom != 0)


def dice_of(case: Case, true: Counts, false: Counts) -> np.ndarray:
    """``2 TP / (2 TP + FP + FN)``; the protocol's ``empty_overlap`` where neither side has foreground."""
    return _ratio(2 * true, true + false + case.positives, case.protocol.empty_overlap)


def iou_of(case: Case, true: Counts, false: Counts) -> np.ndarray:
    """``TP / (TP + FP + FN)``; the protocol's ``empty_overlap`` where neither side has foreground."""
    return _ratio(true, false + case.positives, case.protocol.empty_overlap)


def specificity_of(case: Case, true: Counts, false: Counts) -> np.ndarray:
    """``TN / (TN + FP)``; the protocol's ``undefined`` for a truth without background."""
    values = _ratio(case.negatives - false, np.full_like(false, case.negatives), case.protocol.undefined)
    return np.where(np.asarray(true) > 0, values, 0.0) if case.protocol.specificity_needs_hit else values


def overlap(case: Case) -> dict[str, float]:
    """The three at the protocol's threshold."""
    hits = case.hits_of(case.mask)
    return {
        "dice": float(dice_of(case, *hits)),
        "iou": float(iou_of(case, *hits)),
        "specificity": float(specificity_of(case, *hits)),
    }


def thresholds(case: Case) -> dict[str, float]:
    """The three as means over 256 thresholds: overlap and calibration in one number."""
    return {
        "dice_mean": float(dice_of(case, *case.hits).mean()),
        "iou_mean": float(iou_of(case, *case.hits).mean()),
        "specificity_mean": float(specificity_of(case, *case.hits).mean()),
    }


def absolute_error(case: Case) -> dict[str, float]:
    """Mean of ``|map - truth|``."""
    return {"mae": float(np.abs(case.prediction - case.truth).mean())}


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


ALPHA = 0.5  # weight of the object half, the authors' choice

ROUND_OFF = 1e-20  # variances below it may be a constant block whose mean was rounded


def structure(case: Case) -> dict[str, float]:
    """``s``, ``s_object`` and ``s_region``.

    Without foreground (background) in the truth the two halves have no meaning; all three are then the authors' special
    case, one minus the map's mean (the map's mean).
    """
    if case.positives == 0 or case.negatives == 0:
        mean = float(case.prediction.mean())
        value = mean if case.positives else 1 - mean
        return {"s": value, "s_object": value, "s_region": value}
    halves = _object(case), _region(case)
    return {"s": max(0.0, ALPHA * halves[0] + (1 - ALPHA) * halves[1]), "s_object": halves[0], "s_region": halves[1]}


def _object(case: Case) -> float:
    """Foreground and background scored by themselves and weighted by their size (equations 4 to 6)."""
    share = case.positives / case.truth.size
    inside, outside = case.prediction[case.truth], 1 - case.prediction[~case.truth]
    return share * _uniform(inside, case.protocol.ddof) + (1 - share) * _uniform(outside, case.protocol.ddof)


def _uniform(values: np.ndarray, ddof: int) -> float:
    """How bright and how even the values of one side are (equation 4 with the authors' lambda of 1/2)."""
    mean = values.mean()
    spread = values.std(ddof=ddof) if values.size > 1 else 0.0
    return float(2 * mean / (mean * mean + 1 + spread + EPS))


def _region(case: Case) -> float:
    """Similarity in four blocks that meet at the truth's centroid, weighted by their area (equation 3).

    The centroid's own row and column belong to the first blocks, as in the authors' Matlab code: for that reason a
    mirrored case may score a little differently.
    """
    rows, columns = (np.flatnonzero(case.truth.any(axis=axis)) for axis in (1, 0))
    weights = case.truth.sum(axis=1)[rows], case.truth.sum(axis=0)[columns]
    y = round(float(np.dot(rows, weights[0]) / case.positives)) + 1
    x = round(float(np.dot(columns, weights[1]) / case.positives)) + 1
    total = 0.0
    for down in (slice(0, y), slice(y, None)):
        for right in (slice(0, x), slice(x, None)):
            block = case.prediction[down, right]
            if block.size:
                total += _similarity(block, case.truth[down, right]) * block.size
    return total / case.truth.size


def _similarity(block: np.ndarray, truth: np.ndarray) -> float:
    """SSIM of one block without its stabilising constants (equation 2)."""
    count = block.size
    x, y = float(block.mean()), np.count_nonzero(truth) / count
    centred = block - x
    scale = 1 / (count - 1 + EPS)
    var_x = float(np.vdot(centred, centred)) * scale
    if var_x < ROUND_OFF and block.min() == block.max():
        var_x = 0.0  # PySODMetrics lets the rounding of the mean decide between a score of 0 and of 1 here
    var_y = count * y * (1 - y) * scale
    covariance = float(centred[truth].sum()) * scale if 0 < y < 1 and var_x > 0 else 0.0
    above, below = 4 * x * y * covariance, (x * x + y * y) * (var_x + var_y)
    if above != 0:
        return above / (below + EPS)
    return 1.0 if below == 0 else 0.0
