"""Dice, and how sure one may be of its mean: bootstrap intervals over trainings and cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 5000


def dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Dice of two masks (anything above 0 is foreground); 1 when both are empty.

    >>> dice(np.array([1, 1, 0]), np.array([0, 1, 0]))
    0.6666666666666666
    """
    predicted, wanted = prediction > 0, truth > 0
    total = int(predicted.sum() + wanted.sum())
    return 1.0 if total == 0 else float(2 * (predicted & wanted).sum() / total)


def mean_interval(values: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Mean with a 95 % bootstrap interval: ``{"mean", "low", "high"}``. Same values, same interval.

    ``values`` is ``(cases,)`` or ``(trainings, cases)``; trainings and cases are both drawn anew, so that the interval
    holds both sources of chance.
    """
    array = np.atleast_2d(np.asarray(values, dtype=float))
    rng = np.random.default_rng(0)
    trainings, cases = _weights(rng, array.shape[0]), _weights(rng, array.shape[1])
    return _interval(array.mean(), np.einsum("br,rn,bn->b", trainings, array, cases))


def paired_difference(values: Sequence[float] | np.ndarray, baseline: Sequence[float] | np.ndarray) -> dict[str, float]:
    """Mean of ``values - baseline`` with a 95 % bootstrap interval; arguments as for :func:`mean_interval`.

    Cases are paired; trainings are not, as the first training of one method has nothing to do with that of another.
    """
    first, second = (np.atleast_2d(np.asarray(array, dtype=float)) for array in (values, baseline))
    rng = np.random.default_rng(0)
    cases = _weights(rng, first.shape[1])
    means = [np.einsum("br,rn,bn->b", _weights(rng, len(array)), array, cases) for array in (first, second)]
    return _interval(first.mean() - second.mean(), means[0] - means[1])


def _weights(rng: np.random.Generator, count: int) -> np.ndarray:
    """How much each of ``count`` items weighs in each resample, ``(RESAMPLES, count)``; rows sum to 1."""
    return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count


def _interval(mean: float, resampled: np.ndarray) -> dict[str, float]:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {"mean": float(mean), "low": float(low), "high": float(high)}


def gap_closed(mean: float, baseline: float, bound: float, *, least_gap: float = 0.02) -> float | None:
    """Fraction of the gap from ``baseline`` to the upper ``bound`` that ``mean`` closes; None where there is no gap."""
    gap = bound - baseline
    return None if gap < least_gap else (mean - baseline) / gap
