"""How sure one may be of a difference: bootstrap over trainings and groups of cases, Wilcoxon, Holm, gaps.

Arrays of scores are ``(trainings, cases)``. All functions are deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student
from scipy.stats import wilcoxon

RESAMPLES = 5000
"""Number of bootstrap resamples."""

LEAST_GAP = 0.02
"""Smallest gap to the upper bound, in the score's units, of which a closed share is given."""

Scores = Sequence[float] | Sequence[Sequence[float]] | np.ndarray
"""Scores ``(trainings, cases)``, or ``(cases,)`` of one training."""


@dataclass(frozen=True)
class Bootstrap:
    """Weights of trainings and cases in each resample, so that several statistics are taken over the same draws.

    Attributes:
        cases: ``(RESAMPLES, cases)``, rows sum to 1; single weights may be a little below 0.
    """

    cases: np.ndarray

    @classmethod
    def over(cls, groups: Sequence[object]) -> Bootstrap:
        """Draw whole groups (patients, sequences) of cases with replacement; every case has the same weight.

        Deviations from the plain mean are enlarged by sqrt(G / (G - 1)) for G groups, see :meth:`means`.
        """
        names = list(dict.fromkeys(groups))
        member = np.array([names.index(group) for group in groups])
        drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
        weights = drawn[:, member].astype(float)
        weights /= weights.sum(axis=1, keepdims=True)
        even = 1 / len(member)
        return cls(even + (weights - even) * np.sqrt(len(names) / max(1, len(names) - 1)))

    def means(self, scores: np.ndarray, *, stream: int) -> np.ndarray:
        """Return the mean score of each resample ``(RESAMPLES,)``.

        Trainings are drawn with the random stream ``stream``. Resampling n of them understates the variance of their
        mean by (n - 1) / n, which is much for three: deviations of the drawn mean are enlarged accordingly.
        """
        count = len(scores)
        rng = np.random.default_rng([stream, 1])
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count
        if count > 1:
            drawn = 1 / count + (drawn - 1 / count) * np.sqrt(count / (count - 1))
        return np.asarray(np.einsum("br,rn,bn->b", drawn, scores, self.cases))


def as_scores(values: Scores) -> np.ndarray:
    """Return scores as ``(trainings, cases)``; one row of numbers is one training."""
    return np.atleast_2d(np.asarray(values, dtype=float))


def interval(mean: float, resampled: np.ndarray) -> dict[str, float]:
    """Return ``{"mean", "low", "high"}`` with the 95 % percentile interval of the resampled means."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return {"mean": float(mean), "low": float(low), "high": float(high)}


def mean_interval(values: Scores, groups: Sequence[object] | None = None) -> dict[str, float]:
    """Return the mean with a 95 % bootstrap interval over trainings and groups of cases.

    Args:
        values: the scores.
        groups: group of every case; None makes every case its own group.
    """
    scores = as_scores(values)
    bootstrap = Bootstrap.over(range(scores.shape[1]) if groups is None else groups)
    return interval(scores.mean(), bootstrap.means(scores, stream=0))


def paired_difference(values: Scores, baseline: Scores, groups: Sequence[object] | None = None) -> dict[str, float]:
    """Return the mean of ``values - baseline`` with a 95 % bootstrap interval, see :func:`mean_interval`.

    Cases are paired; trainings are not, as the first training of one method has nothing to do with that of another.
    """
    first, second = as_scores(values), as_scores(baseline)
    bootstrap = Bootstrap.over(range(first.shape[1]) if groups is None else groups)
    difference = bootstrap.means(first, stream=0) - bootstrap.means(second, stream=1)
    return interval(first.mean() - second.mean(), difference)


def training_test(values: Scores, baseline: Scores, groups: Sequence[object] | None = None) -> dict[str, float]:
    """Test a difference of means by Student's t, with the chance in training *and* in the cases.

    The variance of the difference is the sum of three: of the mean over the trainings of either side (n - 1 degrees
    of freedom each) and of the mean over groups of cases (paired, linearized ratio, G - 1); their degrees of freedom
    are joined as Welch and Satterthwaite do. With a single training its chance is unknown and counts as none; a
    single group of cases says nothing about others.

    Returns:
        ``{"mean", "low", "high", "p"}``: the difference, its 95 % interval, and the two-sided p. A single group gives
        the interval from ``mean - 1`` to ``mean + 1`` and p = 1.
    """
    first, second = as_scores(values), as_scores(baseline)
    per_case = first.mean(axis=0) - second.mean(axis=0)
    mean, count = float(first.mean() - second.mean()), per_case.size
    names = np.unique([str(g) for g in (range(count) if groups is None else groups)], return_inverse=True)[1]
    size = int(names.max()) + 1
    if size < 2:
        return {"mean": mean, "low": mean - 1, "high": mean + 1, "p": 1.0}
    sums = np.bincount(names, weights=per_case - mean)
    parts = [(size / (size - 1) * float((sums**2).sum()) / count**2, size - 1)]
    parts += [(float(s.mean(axis=1).var(ddof=1)) / len(s), len(s) - 1) for s in (first, second) if len(s) > 1]
    variance = sum(part for part, _ in parts)
    if variance < 1e-18:
        return {"mean": mean, "low": mean, "high": mean, "p": 1.0 if abs(mean) < 1e-12 else 0.0}
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    half = float(student.ppf(0.975, freedom)) * variance**0.5
    p = 2 * float(student.sf(abs(mean) / variance**0.5, freedom))
    return {"mean": mean, "low": mean - half, "high": mean + half, "p": p}


def wilcoxon_p(values: Scores, baseline: Scores) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test on the cases' means over trainings.

    The test assumes independent cases and ignores the chance in training; :func:`training_test` holds both. p is 1
    where nothing differs.
    """
    difference = as_scores(values).mean(axis=0) - as_scores(baseline).mean(axis=0)
    return 1.0 if not np.any(difference) else float(wilcoxon(difference, zero_method="wilcox").pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values by Holm's step-down method for testing several methods at once; the order is kept.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = np.empty(len(p_values)), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return [float(value) for value in adjusted]


def gap_closed(mean: float, baseline: float, bound: float, *, least_gap: float = LEAST_GAP) -> float | None:
    """Return the share of the gap from ``baseline`` to the upper ``bound`` that ``mean`` closes; None without a gap."""
    gap = bound - baseline
    return None if gap < least_gap else (mean - baseline) / gap


def gap_closed_interval(
    values: Scores, baseline: Scores, bound: Scores, groups: Sequence[object] | None = None
) -> dict[str, float] | None:
    """Return :func:`gap_closed` with a 95 % bootstrap interval; None unless the gap is beyond chance and not small."""
    method, none, truth = as_scores(values), as_scores(baseline), as_scores(bound)
    bootstrap = Bootstrap.over(range(none.shape[1]) if groups is None else groups)
    low, high = bootstrap.means(none, stream=1), bootstrap.means(truth, stream=2)
    share = gap_closed(method.mean(), none.mean(), truth.mean())
    if share is None or np.percentile(high - low, 2.5) <= 0:
        return None
    gaps = np.maximum(high - low, LEAST_GAP)
    return interval(share, (bootstrap.means(method, stream=0) - low) / gaps)
