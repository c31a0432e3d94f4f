"""The paper protocol is what the paper's columns hold, written here a second time from their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_osasis.evaluation.metrics import PAPER, score_case


@pytest.fixture
def pair(blob, noisy) -> tuple[np.ndarray, np.ndarray]:
    truth = blob(5)
    return np.rint(noisy(truth, 1, noise=0.1) * 200 + 20) / 255, truth  # grey all over: never 0, never 1


def test_overlap_is_averaged_over_256_thresholds_of_the_map_as_it_is(pair: tuple[np.ndarray, np.ndarray]) -> None:
    levels, truth = np.rint(pair[0] * 255), pair[1]
    dice, iou, specificity = [], [], []
    for level in range(256):
        mask = levels >= level
        hits, both = (mask & truth).sum(), mask.sum() + truth.sum()
        dice.append(2 * hits / both)
        iou.append(hits / (both - hits))
        specificity.append((~mask & ~truth).sum() / (~truth).sum() if hits else 0)
    found = score_case(*pair, protocol="paper")
    assert found["dice_mean"] == pytest.approx(np.mean(dice))
    assert found["iou_mean"] == pytest.approx(np.mean(iou))
    assert found["specificity_mean"] == pytest.approx(np.mean(specificity))
    assert found["specificity_mean"] < score_case(*pair)["specificity_mean"]


def test_s_is_the_object_half_with_the_population_deviation(pair: tuple[np.ndarray, np.ndarray]) -> None:
    def side(values: np.ndarray) -> float:
        return 2 * values.mean() / (values.mean() ** 2 + 1 + values.std())

    values, truth = pair
    expected = truth.mean() * side(values[truth]) + (1 - truth.mean()) * side(1 - values[~truth])
    assert score_case(*pair, protocol="paper")["s_object"] == pytest.approx(expected)


def test_e_has_no_threshold(pair: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = pair[0] - pair[0].mean(), pair[1] - pair[1].mean()
    expected = ((2 * a * b / (a * a + b * b) + 1) ** 2 / 4).sum() / (a.size - 1)
    assert score_case(*pair, protocol="paper")["e_continuous"] == pytest.approx(expected)
    assert expected < score_case(*pair, metrics=["e_max"])["e_max"]


def test_only_the_papers_columns_are_computed_and_their_headings_say_what_they_are() -> None:
    mask = np.eye(8)
    assert set(score_case(mask, mask, protocol="paper")) == set(PAPER.columns.values())
    assert "Dice" not in PAPER.columns and "S_object (as S)" in PAPER.columns and not PAPER.normalize


def test_a_grey_but_correct_map_loses_dice_in_the_paper_protocol_only() -> None:
    truth = np.zeros((20, 20), bool)
    truth[5:12, 5:15] = True
    grey = np.where(truth, 0.6, 0.4)
    assert score_case(grey, truth, metrics=["dice"])["dice"] == 1
    assert score_case(grey, truth, protocol="paper")["dice_mean"] < 0.45
