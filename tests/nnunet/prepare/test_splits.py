"""Splits keep sequences and patients together and do what was stated."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.prepare.pairs import Case
from nnunet_osasis.nnunet.prepare.splits import SplitRule, divide, make_folds, selects


def cases_of(groups: list[str], test: frozenset[int] = frozenset()) -> list[Case]:
    nothing = Path()
    return [Case(str(i + 1), nothing, nothing, group, i + 1 in test) for i, group in enumerate(groups)]


VIDEO = cases_of(["sequence 1"] * 10 + ["sequence 2"] * 10 + ["sequence 3"] * 5 + ["sequence 4"] * 5)


@given(st.lists(st.integers(0, 9), min_size=5, max_size=60), st.integers(2, 5), st.integers(0, 9))
def test_folds_never_divide_a_group_and_hold_out_every_case_once(numbers, count, seed):
    cases = cases_of([f"g{n}" for n in numbers])
    if len(set(numbers)) < count:
        with pytest.raises(OsasisError, match="folds"):
            make_folds(cases, count, seed)
        return
    folds = make_folds(cases, count, seed)
    group = {case.key: case.group for case in cases}
    held_out = [key for fold in folds for key in fold["val"]]
    assert sorted(held_out) == sorted(group)
    for fold in folds:
        assert fold["val"] and not {group[k] for k in fold["train"]} & {group[k] for k in fold["val"]}
    assert folds == make_folds(cases, count, seed)


def test_single_cases_make_folds_of_equal_size():
    folds = make_folds(cases_of([f"case {i}" for i in range(23)]), 5, 0)
    assert sorted(len(fold["val"]) for fold in folds) == [4, 4, 5, 5, 5]


def test_stated_ranges_are_obeyed():
    division = divide(VIDEO, SplitRule(train="1-10", val="11-20", test="21-25"))
    assert [case.key for case in division.test] == [str(i) for i in range(21, 26)]
    assert division.folds == [{"train": [str(i) for i in range(1, 11)], "val": [str(i) for i in range(11, 21)]}]
    assert len(division.training) == 20


def test_groups_can_be_named_for_testing():
    division = divide(VIDEO, SplitRule(test_groups="3-4", folds=2))
    assert len(division.test) == 10 and len(division.training) == 20 and len(division.folds) == 2
    assert len(divide(VIDEO, SplitRule(test_groups="sequence 4", folds=3)).test) == 5


def test_the_publishers_test_set_is_kept_unless_another_is_stated():
    cases = cases_of([f"case {i}" for i in range(10)], test=frozenset({1, 2}))
    assert len(divide(cases, SplitRule(folds=2)).test) == 2
    assert [case.key for case in divide(cases, SplitRule(test="10", folds=2)).test] == ["10"]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (SplitRule(train="1-15", test="16-30"), "'sequence 2' in training and test"),
        (SplitRule(val="5"), "'sequence 1' in training and validation"),
        (SplitRule(train="1-10", val="1-10"), "case '1' in training and validation"),
        (SplitRule(test="900"), "must select cases"),
        (SplitRule(test_groups="9"), "must select cases"),
        (SplitRule(test="1-30"), "training cases"),
        (SplitRule(folds=5), "5 folds for 4 groups"),
        (SplitRule(folds=1), "at least 2 folds"),
    ],
)
def test_divided_groups_and_empty_selections_are_refused(rule, text):
    with pytest.raises(OsasisError, match=text):
        divide(VIDEO, rule)


def test_selections():
    assert selects("1-3, 7", "img_2") and selects("7", "7") and not selects("1-3", "img_4")
    assert selects("*_test", "01_test") and not selects("*_test", "01_training")
    assert not selects("1-3", "nothing") and not selects("", "1")
