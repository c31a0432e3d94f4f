"""Measures of maps from salient object detection: weighted F, S-measure and E-measure, of images only.

Weighted F (Margolin et al., CVPR 2014): errors near the object and beside other errors weigh less. S (Fan et al., ICCV
2017): structural similarity. E (Fan et al., IJCAI 2018): enhanced alignment. The numbers are those of the authors'
Matlab code and of PySODMetrics, with less work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from nnunet_osasis.evaluation.metrics.case import Case

EPS = np.spacing(1)
"""The authors' safeguard against division by zero."""

Values = np.ndarray | float

BETA = 1.0
"""Weight of recall against precision in the weighted F-measure."""

RADIUS, SIGMA = 3, 5.0
"""Radius and standard deviation of the Gaussian over errors, in pixels: the authors' 7 x 7, as two 1D ones."""

HALVING = 5.0
"""Distance, in pixels, over which the extra weight of a false alarm halves."""

ALPHA = 0.5
"""Weight of the object half of the S-measure, the authors' choice."""

ROUND_OFF = 1e-20
"""Variances below it may be a constant block whose mean was rounded."""


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
        slice(max(0, int(line[0]) - RADIUS), int(line[-1]) + RADIUS + 1)
        for line in (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    )


def _dependent_errors(error: np.ndarray, truth: np.ndarray, nearest: np.ndarray) -> float:
    """Sum over the object of the smaller of a pixel's error and its neighborhood's.

    In the neighborhood a background pixel stands for the nearest object pixel, so that only the object's errors count.
    """
    window = _box(truth)
    rows, columns = nearest[(slice(None), *window)]
    nearest_error = error[rows, columns]  # an object pixel is its own nearest one
    spread = ndimage.gaussian_filter(nearest_error, SIGMA, mode="constant", radius=RADIUS)
    near = truth[window]
    return float(np.minimum(spread[near], error[window][near]).sum())


def _weighted_false_alarms(error: np.ndarray, truth: np.ndarray, nearest: np.ndarray) -> float:
    """Sum over the background of the error times ``2 - 0.5 ** (distance / 5)``."""
    rows, columns = np.nonzero((error > 0) & ~truth)
    down, right = (nearest[axis][rows, columns] - at for axis, at in ((0, rows), (1, columns)))
    distance = np.sqrt((down * down + right * right).astype(float))
    return float(np.dot(error[rows, columns], 2 - np.exp(np.log(0.5) / HALVING * distance)))


def structure(case: Case) -> dict[str, float]:
    """``s``, ``s_object`` and ``s_region``.

    Without foreground (background) in the truth the two halves have no meaning; all three are then the authors' special
    case, one minus the map's mean (the map's mean).
    """
    if case.positives == 0 or case.negatives == 0:
        mean = float(case.pixels[0].mean())
        value = mean if case.positives else 1 - mean
        return {"s": value, "s_object": value, "s_region": value}
    halves = _object(case), _region(case)
    return {"s": max(0.0, ALPHA * halves[0] + (1 - ALPHA) * halves[1]), "s_object": halves[0], "s_region": halves[1]}


def _object(case: Case) -> float:
    """Foreground and background scored by themselves and weighted by their size (equations 4 to 6)."""
    prediction, truth = case.pixels
    share = case.positives / case.size
    inside, outside = prediction[truth], 1 - prediction[~truth]
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
    centered = block - x
    scale = 1 / (count - 1 + EPS)
    var_x = float(np.vdot(centered, centered)) * scale
    if var_x < ROUND_OFF and block.min() == block.max():
        var_x = 0.0  # PySODMetrics lets the rounding of the mean decide between a score of 0 and of 1 here
    var_y = count * y * (1 - y) * scale
    covariance = float(centered[truth].sum()) * scale if 0 < y < 1 and var_x > 0 else 0.0
    above, below = 4 * x * y * covariance, (x * x + y * y) * (var_x + var_y)
    if above != 0:
        return above / (below + EPS)
    return 1.0 if below == 0 else 0.0


def _enhanced(a: Values, b: Values) -> Any:
    return (2 * a * b / (a * a + b * b + EPS) + 1) ** 2 / 4


def _mean(total: Values, size: int) -> Any:
    """The authors divide by one pixel less than there are, so that E reaches N / (N - 1), a little above 1."""
    return total / (max(size - 1, 1) + EPS)


def alignment_of(case: Case, true: Values, false: Values) -> np.ndarray:
    """E-measure of masks with ``true`` and ``false`` positives (arrays of one shape), equations 4 to 6.

    With both images reduced by their means to ``a`` and ``b``, each pixel scores ``(1 + 2ab / (a² + b²))² / 4``. For a
    mask, ``a`` and ``b`` take two values each, so that four counts decide the whole sum.

    Where the truth has no foreground (background), it is the share of predicted background (foreground).
    """
    true, false = np.asarray(true, dtype=float), np.asarray(false, dtype=float)
    size, predicted = case.size, true + false
    if case.positives == 0:
        return _mean(size - predicted, size)
    if case.negatives == 0:
        return _mean(predicted, size)
    share, true_share = predicted / size, case.positives / size
    missed = case.positives - true
    parts = (
        true * _enhanced(1 - share, 1 - true_share),
        false * _enhanced(1 - share, -true_share),
        missed * _enhanced(-share, 1 - true_share),
        (size - predicted - missed) * _enhanced(-share, -true_share),
    )
    return _mean(sum(parts[1:], parts[0]), size)


def alignment_curve(case: Case) -> np.ndarray:
    """E-measure ``(256,)`` at the thresholds 255/255, 254/255, ..., 0/255."""
    return alignment_of(case, *case.hits)


def alignment(case: Case) -> dict[str, float]:
    """Largest and mean value of the curve of this one case."""
    curve = alignment_curve(case)
    return {"e_max": float(curve.max()), "e_mean": float(curve.mean())}


def adaptive_alignment(case: Case) -> dict[str, float]:
    """E-measure at the map's own threshold: twice its mean, at most 1."""
    hits = case.hits_at(min(2 * float(case.pixels[0].mean()), 1))
    return {"e_adaptive": float(alignment_of(case, *hits))}


def continuous_alignment(case: Case) -> dict[str, float]:
    """E-measure of the map as it is: no threshold, every gray level aligned by itself."""
    (values, truth), size = case.pixels, case.size
    if case.positives == 0:
        total = size - values.sum()
    elif case.negatives == 0:
        total = values.sum()
    else:
        total = _enhanced(values - values.mean(), truth - case.positives / size).sum()
    return {"e_continuous": float(_mean(total, size))}
