"""E-measure: enhanced alignment of a map with its truth (Fan et al., IJCAI 2018, equations 4 to 6).

With both images reduced by their means to ``a`` and ``b``, each pixel scores ``(1 + 2ab / (a² + b²))² / 4``. For a
mask, ``a`` and ``b`` take two values each, so that four counts decide the whole sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nnunet_osasis.metrics.case import Case

EPS = np.spacing(1)


Values = np.ndarray | float


def _enhanced(a: Values, b: Values) -> Any:
    return (2 * a * b / (a * a + b * b + EPS) + 1) ** 2 / 4


def _mean(total: Values, size: int) -> Any:
    """The authors divide by one pixel less than there are, so that E reaches N / (N - 1), a little above 1."""
    return total / (max(size - 1, 1) + EPS)


def alignment_of(case: Case, true: Values, false: Values) -> np.ndarray:
    """E-measure of masks with ``true`` and ``false`` positives (arrays of one shape).

    Where the truth has no foreground (background), it is the share of predicted background (foreground).
    """
    true, false = np.asarray(true, dtype=float), np.asarray(false, dtype=float)
    size, predicted = case.truth.size, true + false
    if case.positives == 0:
        return _mean(size - predicted, size)
    if case.negatives == 0:
        return _mean(predicted, size)
    share, wanted = predicted / size, case.positives / size
    missed = case.positives - true
    parts = (
        true * _enhanced(1 - share, 1 - wanted),
        false * _enhanced(1 - share, -wanted),
        missed * _enhanced(-share, 1 - wanted),
        (size - predicted - missed) * _enhanced(-share, -wanted),
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
    mask = case.prediction >= min(2 * case.prediction.mean(), 1)
    true, false = case.hits_of(mask)
    return {"e_adaptive": float(alignment_of(case, true, false))}


def continuous_alignment(case: Case) -> dict[str, float]:
    """E-measure of the map as it is: no threshold, every grey level aligned by itself."""
    values, size = case.prediction, case.truth.size
    if case.positives == 0:
        total = size - values.sum()
    elif case.negatives == 0:
        total = values.sum()
    else:
        total = _enhanced(values - values.mean(), case.truth - case.positives / size).sum()
    return {"e_continuous": float(_mean(total, size))}
