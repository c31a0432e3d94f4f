"""Training, validation and test cases: folds or stated ranges, never a sequence or patient on two sides."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.prepare.pairs import Case, number_of


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """What the user wants where. A selection is a list such as ``1-408,500`` or ``*_training``, see :func:`selects`.

    Attributes:
        train, val, test: selections of cases; without ``train`` all that is left, without ``val`` folds of it, without
            ``test`` what the dataset's publishers meant for testing.
        test_groups: a selection of groups, added to ``test``.
        folds: number of folds. seed: of their draw.
    """

    train: str | None = None
    val: str | None = None
    test: str | None = None
    test_groups: str | None = None
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise OsasisError(
                f"--seed must not be negative, and be below {2**32}", found=self.seed, remedy="Choose such a number."
            )


@dataclass(frozen=True)
class Division:
    """The cases of a dataset, divided.

    Attributes:
        training: cases for ``imagesTr``.
        test: cases for ``imagesTs``.
        folds: for every fold the keys of its ``train`` and ``val`` cases.
    """

    training: list[Case]
    test: list[Case]
    folds: list[dict[str, list[str]]]

    @property
    def cases(self) -> list[Case]:
        """All cases, those for training first."""
        return [*self.training, *self.test]


def divide(cases: Sequence[Case], rule: SplitRule) -> Division:
    """Divide ``cases`` by ``rule``; cases that no selection takes are left out.

    Raises:
        OsasisError: a selection that takes nothing, a case or group on two sides, fewer groups than folds.
    """
    test = {case.key for case in cases if case.test}
    if rule.test is not None or rule.test_groups is not None:
        test = _select("--test", cases, rule.test) | _select("--test-groups", cases, rule.test_groups, by_group=True)
    val = _select("--val", cases, rule.val)
    rest = {case.key for case in cases} - test - val
    train = rest if rule.train is None else _select("--train", cases, rule.train)
    sides = {"training": train, "validation": val, "test": test}
    _require_apart(cases, sides)
    training = [case for case in cases if case.key in train | val]
    if not train:
        raise OsasisError(
            "There must be training cases", found=f"none of {len(cases)}", remedy="Change --train or --test."
        )
    if val:
        folds = [
            {"train": [c.key for c in training if c.key in train], "val": [c.key for c in training if c.key in val]}
        ]
    else:
        folds = make_folds(training, rule.folds, rule.seed)
    return Division(training, [case for case in cases if case.key in test], folds)


def make_folds(cases: Sequence[Case], count: int, seed: int) -> list[dict[str, list[str]]]:
    """``count`` folds of nearly equal size with whole groups: the largest group first, each to the smallest fold.

    Groups of equal size go in an order drawn with ``seed``. Raises ``OsasisError`` for fewer groups than folds.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        members[case.group].append(case.key)
    if not 2 <= count <= len(members):
        raise OsasisError(
            "There must be at least 2 folds, and no more than groups of cases",
            found=f"{count} folds for {len(members)} groups of {len(cases)} training cases",
            remedy="Say --folds, or state --train and --val.",
        )
    drawn = [list(members)[i] for i in np.random.default_rng(seed).permutation(len(members))]
    held_out: list[set[str]] = [set() for _ in range(count)]
    for group in sorted(drawn, key=lambda name: -len(members[name])):
        min(held_out, key=len).update(members[group])
    keys = [case.key for case in cases]
    return [{"train": [k for k in keys if k not in out], "val": [k for k in keys if k in out]} for out in held_out]


def selects(selection: str, name: str) -> bool:
    """Whether a comma-separated list takes ``name``: ``7``, ``1-408`` by its last number, all else as ``*`` patterns.

    >>> selects("1-408,500", "img_500"), selects("*_test", "01_test"), selects("1-9", "01_test")
    (True, True, True)
    """
    number = number_of(name)
    for item in filter(None, (part.strip() for part in selection.split(","))):
        limits = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
        if limits is not None:
            low, high = int(limits[1]), int(limits[2] or limits[1])
            if number is not None and low <= number <= high:
                return True
        elif fnmatchcase(name, item):
            return True
    return False


def _select(option: str, cases: Sequence[Case], selection: str | None, *, by_group: bool = False) -> set[str]:
    if selection is None:
        return set()
    chosen = {case.key for case in cases if selects(selection, case.group if by_group else case.key)}
    if not chosen:
        names = sorted({case.group if by_group else case.key for case in cases})
        raise OsasisError(
            f"{option} must select cases",
            found=f"none by {selection!r}",
            remedy=f"Names look like {', '.join(names[:3])}; ranges such as 1-408 count the last number of a name.",
        )
    return chosen


def _require_apart(cases: Sequence[Case], sides: dict[str, set[str]]) -> None:
    where: dict[str, str] = {}
    for case in cases:
        for side in (name for name, keys in sides.items() if case.key in keys):
            for kind, name in (("case", case.key), ("group", case.group)):
                before = where.setdefault(f"{kind} {name}", side)
                if before != side:
                    raise OsasisError(
                        "Cases and groups (sequences, patients) must lie on one side of a split",
                        found=f"{kind} {name!r} in {before} and {side}",
                        remedy="Move the border to the start of a group, or give groups of your own with --groups.",
                    )
