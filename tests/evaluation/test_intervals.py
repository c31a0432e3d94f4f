"""Intervals say what they claim."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_osasis.evaluation.report.statistics import gap_closed, mean_interval, paired_difference


def test_interval_covers_the_mean_of_the_population_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        interval = mean_interval(rng.normal(0.7, 0.1, 30))
        covered += interval["low"] <= 0.7 <= interval["high"]
    assert 86 <= covered <= 100


def test_pairing_removes_the_spread_between_cases():
    difficulty = np.random.default_rng(1).normal(0, 0.2, 40)
    difference = paired_difference(0.6 + difficulty + 0.05, 0.6 + difficulty)
    assert difference["low"] == pytest.approx(0.05) and difference["high"] == pytest.approx(0.05)


def test_gap_closed_needs_a_gap():
    assert gap_closed(0.7, 0.5, 0.9) == pytest.approx(0.5)
    assert gap_closed(0.4, 0.5, 0.9) == pytest.approx(-0.25)
    assert gap_closed(0.9, 0.895, 0.9) is None


def test_chance_between_trainings_widens_the_interval():
    cases = np.random.default_rng(2).normal(0, 0.02, 30)
    alike, apart = np.stack([cases + 0.6, cases + 0.6]), np.stack([cases + 0.4, cases + 0.8])
    narrow, wide = mean_interval(alike), mean_interval(apart)
    assert narrow["mean"] == pytest.approx(wide["mean"])
    assert wide["low"] < 0.45 < narrow["low"] and narrow["high"] < 0.75 < wide["high"]
    assert paired_difference(apart, alike)["low"] < 0 < paired_difference(apart, alike)["high"]
