"""Intervals, p values and gaps: equal to their formulas, and as honest as they claim."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp, wilcoxon

from nnunet_osasis.evaluation.report.statistics import (
    LEAST_GAP,
    Bootstrap,
    gap_closed,
    gap_closed_interval,
    holm,
    mean_interval,
    paired_difference,
    training_test,
    wilcoxon_p,
)

RNG = np.random.default_rng(0)
SCORES, BASELINE = RNG.normal(0.7, 0.1, (3, 30)), RNG.normal(0.6, 0.1, (3, 30))


def test_means_differences_and_p_are_the_textbooks() -> None:
    assert mean_interval(SCORES)["mean"] == pytest.approx(SCORES.mean())
    assert paired_difference(SCORES, BASELINE)["mean"] == pytest.approx(SCORES.mean() - BASELINE.mean())
    expected = wilcoxon(SCORES.mean(axis=0), BASELINE.mean(axis=0)).pvalue
    assert wilcoxon_p(SCORES, BASELINE) == pytest.approx(expected)


def test_the_interval_of_one_training_is_the_usual_one_over_cases() -> None:
    cases = SCORES[0]
    found, error = mean_interval(cases), cases.std() / np.sqrt(cases.size)
    assert found["low"] == pytest.approx(cases.mean() - 1.96 * error, abs=0.1 * error)
    assert found["high"] == pytest.approx(cases.mean() + 1.96 * error, abs=0.1 * error)


def test_a_method_that_changes_nothing_differs_by_exactly_nothing() -> None:
    for same in (SCORES[0], np.repeat(SCORES[:1], 3, axis=0)):
        found = paired_difference(same, same)
        assert found["mean"] == 0 and found["low"] == pytest.approx(0, abs=1e-12) == pytest.approx(found["high"])
        assert wilcoxon_p(same, same) == 1
    assert paired_difference(SCORES[0], SCORES[0]) == {"mean": 0, "low": 0, "high": 0}
    several = paired_difference(SCORES, SCORES)  # trainings of two methods are not pairs: their chance remains
    assert several["mean"] == 0 and several["low"] < 0 < several["high"] and wilcoxon_p(SCORES, SCORES) == 1


def test_the_same_scores_give_the_same_numbers() -> None:
    assert paired_difference(SCORES, BASELINE) == paired_difference(SCORES, BASELINE)
    lists = paired_difference(SCORES.tolist(), BASELINE.tolist(), list(range(30)))
    assert lists == paired_difference(SCORES, BASELINE)


def simulated(
    rng: np.random.Generator, effect: float, *, between: float, within: float
) -> tuple[np.ndarray, np.ndarray]:
    """Two methods, three trainings each, on the same thirty cases."""
    difficulty = rng.normal(0, 0.15, 30)
    change = effect + rng.normal(0, within, 30)
    noise = rng.normal(0, 0.03, (2, 3, 30)) + rng.normal(0, between, (2, 3, 1))
    return 0.6 + difficulty + change + noise[0], 0.6 + difficulty + noise[1]


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        found = paired_difference(*simulated(rng, 0.05, between=0.02, within=0.08))
        covered += found["low"] <= 0.05 <= found["high"]
    assert 0.88 <= covered / 200 <= 0.99


def test_one_training_each_is_the_textbooks_paired_t_test() -> None:
    found = training_test(SCORES[0], BASELINE[0])
    expected = ttest_1samp(SCORES[0] - BASELINE[0], 0)
    assert found["mean"] == pytest.approx(float((SCORES[0] - BASELINE[0]).mean()))
    assert found["p"] == pytest.approx(expected.pvalue, rel=1e-9)
    interval = expected.confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert training_test(BASELINE[0], SCORES[0])["p"] == pytest.approx(found["p"])


def test_groups_and_trainings_add_their_variance_by_the_formula() -> None:
    groups = [str(i // 7) for i in range(30)]  # five groups, the last of two cases
    difference = SCORES.mean(axis=0) - BASELINE.mean(axis=0)
    sums = [(difference[[g == name for g in groups]] - difference.mean()).sum() for name in dict.fromkeys(groups)]
    parts = [(5 / 4 * float(np.square(sums).sum()) / 30**2, 4)]
    parts += [(s.mean(axis=1).var(ddof=1) / 3, 2) for s in (SCORES, BASELINE)]
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    found, half = training_test(SCORES, BASELINE, groups), student.ppf(0.975, freedom) * np.sqrt(variance)
    assert found["high"] - found["mean"] == pytest.approx(half) == found["mean"] - found["low"]
    assert found["p"] == pytest.approx(2 * student.sf(abs(difference.mean()) / np.sqrt(variance), freedom))


def test_nothing_is_certain_of_equal_scores_and_of_a_single_group() -> None:
    for same in (SCORES[0], SCORES):
        found = training_test(same, same)
        assert found["p"] == 1 and found["mean"] == 0 and found["low"] <= 0 <= found["high"]
    assert training_test(SCORES[0], SCORES[0]) == {"mean": 0, "low": 0, "high": 0, "p": 1}
    found, mean = training_test(SCORES, BASELINE, ["p1"] * 30), float(SCORES.mean() - BASELINE.mean())
    assert found == pytest.approx({"mean": mean, "low": mean - 1, "high": mean + 1, "p": 1})


def test_the_t_test_is_wrong_as_often_as_it_says_and_sees_what_is_clear() -> None:
    """Without an effect trainings still differ, by more than the error of thirty cases."""
    rng = np.random.default_rng(5)
    nothing = [training_test(*simulated(rng, 0, between=0.03, within=0.02))["p"] < 0.05 for _ in range(400)]
    assert 0.02 <= np.mean(nothing) <= 0.08
    clear = [training_test(*simulated(rng, 0.15, between=0.03, within=0.02)) for _ in range(100)]
    assert np.mean([found["p"] < 0.05 for found in clear]) > 0.9
    assert np.mean([found["low"] <= 0.15 <= found["high"] for found in clear]) >= 0.9


def test_few_groups_are_resampled_as_wide_as_their_number_says() -> None:
    """Four groups of equal cases: the standard error is s / sqrt(4) with s over n - 1."""
    means = np.array([0.5, 0.6, 0.75, 0.8])
    error = means.std(ddof=1) / np.sqrt(4)
    drawn = Bootstrap.over(np.repeat(range(4), 5)).means(np.repeat(means, 5)[None], stream=0)
    assert drawn.std() == pytest.approx(error, rel=0.05)


def test_chance_between_trainings_and_groups_of_cases_widen_the_interval() -> None:
    cases = RNG.normal(0, 0.02, 30)
    alike, apart = np.stack([cases + 0.6] * 3), np.stack([cases + 0.4, cases + 0.6, cases + 0.8])
    assert width(mean_interval(apart)) > 5 * width(mean_interval(alike))
    groups = np.repeat(np.arange(6), 5)
    of_patients = 0.6 + RNG.normal(0, 0.1, 6)[groups] + RNG.normal(0, 0.01, 30)
    assert width(mean_interval(of_patients, groups.tolist())) > 1.5 * width(mean_interval(of_patients))


def test_trainings_vary_as_much_as_their_number_says() -> None:
    """Three trainings, no noise in the cases: the standard error is s / sqrt(3) with s over n - 1."""
    means = np.array([0.5, 0.6, 0.75])
    resampled = mean_interval(np.repeat(means[:, None], 8, axis=1))
    error = means.std(ddof=1) / np.sqrt(3)
    assert 2.5 * error < width(resampled) < 4.5 * error


def test_holm_is_what_one_computes_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])


def test_the_gap_closed_is_a_share_and_needs_a_gap() -> None:
    assert gap_closed(0.7, 0.5, 0.9) == pytest.approx(0.5)
    assert gap_closed(0.4, 0.5, 0.9) == pytest.approx(-0.25)
    assert gap_closed(1.0, 0.5, 0.9) == pytest.approx(1.25)
    assert gap_closed(0.9, 0.9 - LEAST_GAP / 2, 0.9) is None
    assert gap_closed(0.7, 0.9, 0.5) is None


def test_a_gap_within_chance_is_no_gap() -> None:
    rng = np.random.default_rng(3)
    none = rng.normal(0.6, 0.05, (3, 20))
    found = gap_closed_interval(none + 0.1, none, none + 0.2)
    assert found is not None and found["mean"] == pytest.approx(0.5)
    assert found["low"] < 0.5 < found["high"]
    bound = none.mean() + 0.03 + np.linspace(-0.4, 0.4, 20)[None].repeat(3, axis=0)
    assert gap_closed(none.mean(), none.mean(), bound.mean()) is not None
    assert gap_closed_interval(none, none, bound) is None
    whole = gap_closed_interval(none + 0.2, none, none + 0.2)
    nothing = gap_closed_interval(none, none, none + 0.2)
    assert whole is not None and whole["mean"] == pytest.approx(1)
    assert nothing is not None and nothing["mean"] == pytest.approx(0)


def width(found: dict[str, float]) -> float:
    return found["high"] - found["low"]
