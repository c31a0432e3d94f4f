"""What must hold for any map: ranges, symmetry, perfect predictions, mirrors and turns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_osasis.evaluation.metrics import METRICS, PROTOCOLS, score_case

PLAIN = tuple(name for name, d in METRICS.items() if d.group not in ("hausdorff", "surface"))  # those are MONAI's
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))
LEVELS = st.integers(0, 255)
MIRRORED = ("dice", "iou", "specificity", "dice_mean", "iou_mean", "e_max", "e_mean", "e_continuous", "mae")
FEW = settings(max_examples=60, deadline=None)


@st.composite
def maps(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(SHAPES)
    levels = draw(arrays(np.uint8, shape, elements=LEVELS | st.sampled_from([0, 255])))
    return levels / 255, draw(arrays(bool, shape))


@given(maps(), st.sampled_from(sorted(PROTOCOLS)))
@FEW
def test_every_value_lies_in_its_documented_range(pair: tuple[np.ndarray, np.ndarray], protocol: str) -> None:
    size = pair[1].size
    for name, value in score_case(*pair, protocol=protocol, metrics=PLAIN).items():
        upper = METRICS[name].upper * (size / max(size - 1, 1) if name.startswith("e_") else 1)
        lower = -1 if name == "s_region" else 0
        assert math.isnan(value) or lower - 1e-9 <= value <= upper + 1e-9, name


@given(arrays(bool, SHAPES))
@FEW
def test_a_perfect_mask_is_perfect(truth: np.ndarray) -> None:
    found = score_case(truth, truth, metrics=PLAIN)
    for name in ("dice", "iou", "specificity", "wf", "s", "s_object", "s_region", "lesion_recall", "lesion_precision"):
        assert math.isnan(found[name]) or found[name] == pytest.approx(1), name
    assert found["mae"] == found["lesions_false"] == found["lesions_missed"] == 0


@given(arrays(bool, (8, 8)), arrays(bool, (8, 8)))
@FEW
def test_overlap_does_not_depend_on_which_mask_is_the_truth(first: np.ndarray, second: np.ndarray) -> None:
    names = ("dice", "iou", "mae", "lesions_missed", "lesions_false")
    forth, back = score_case(first, second, metrics=names), score_case(second, first, metrics=names)
    assert (forth["dice"], forth["iou"], forth["mae"]) == (back["dice"], back["iou"], back["mae"])
    assert forth["lesions_missed"] == back["lesions_false"]


@given(maps())
@FEW
def test_mirrored_and_turned_cases_score_the_same(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Left out: S (the centroid's own row), weighted F (ties between nearest pixels) and adaptive E (a rounded sum)."""
    plain = score_case(*pair, metrics=MIRRORED)
    for change in (np.fliplr, np.flipud, np.rot90, np.transpose):
        turned = score_case(*(change(array) for array in pair), metrics=MIRRORED)
        assert turned == pytest.approx(plain, abs=1e-9, nan_ok=True)


@given(maps())
@FEW
def test_a_transposed_case_has_the_same_structure_measure(pair: tuple[np.ndarray, np.ndarray]) -> None:
    names = ("s", "s_object", "s_region")
    plain, turned = score_case(*pair, metrics=names), score_case(*(a.T for a in pair), metrics=names)
    assert turned == pytest.approx(plain, abs=1e-7)


@given(maps())
@FEW
def test_iou_and_dice_tell_the_same_story(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = score_case(*pair, metrics=("dice", "iou"))
    assert found["iou"] == pytest.approx(found["dice"] / (2 - found["dice"]))
