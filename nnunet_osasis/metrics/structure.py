"""S-measure: structural similarity of a map and its truth (Fan et al., ICCV 2017)."""

from __future__ import annotations

import numpy as np

from nnunet_osasis.metrics.case import Case

EPS = np.spacing(1)
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
