"""The experiment of a user who gives two folders and no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.config import (
    KINDS,
    Budget,
    Experiment,
    ImageSet,
    MethodSpec,
    NetworkSpec,
    StylizerSpec,
    Target,
)
from nnunet_osasis.evaluation.experiment.data import select_cases

TEST_SHARE = 0.25

FEWEST_TRAIN, FEWEST_TEST, FEWEST_TARGET = 6, 3, 3


def folders_experiment(
    source: Path,
    target: Path,
    data: Path,
    *,
    source_test: Path | None = None,
    groups: str = "",
    seeds: Sequence[int] = (0, 1, 2),
    budget: Budget | None = None,
    stylizer: StylizerSpec | None = None,
) -> Experiment:
    """All methods, nnU-Net's U-Net, three trainings each, on folders with ``images`` and ``masks``.

    Without ``source_test`` a quarter of the source's groups (patients; every image for itself without a rule), drawn
    with a fixed seed, is kept for the in-domain test.

    Raises:
        OsasisError: folders outside ``data``, or fewer than 6 training, 3 in-domain test or 3 target images.
    """
    train = _set(source, data, groups)
    if source_test is not None:
        test = _set(source_test, data, groups)
    else:
        cases = select_cases(train, data, what="The source")
        names = sorted({case.group for case in cases})
        order = np.random.default_rng(0).permutation(len(names))
        kept = {names[i] for i in order[: max(1, round(TEST_SHARE * len(names)))]}
        inside = tuple(case.name for case in cases if case.group in kept)
        rest = tuple(case.name for case in cases if case.group not in kept)
        test, train = replace(train, include=inside), replace(train, include=rest)
    other = _set(target, data, groups)
    for images, least, what in ((train, FEWEST_TRAIN, "training"), (test, FEWEST_TEST, "in-domain test")):
        found = len(select_cases(images, data, what=what)) if images.include or source_test else 0
        if found < least:
            raise OsasisError(f"There must be at least {least} {what} images", found=found)
    if (found := len(select_cases(other, data, what="The target"))) < FEWEST_TARGET:
        raise OsasisError(f"There must be at least {FEWEST_TARGET} target images", found=found)
    return Experiment(
        name=f"{source.name} to {target.name}",
        train=train,
        test=test,
        targets=(Target(name="target", set=other),),
        networks=(NetworkSpec(name="unet"),),
        methods=tuple(MethodSpec(name=kind, kind=kind) for kind in KINDS if kind != "truth"),
        seeds=tuple(seeds),
        budget=budget or Budget(),
        stylizer=stylizer or StylizerSpec(),
    )


def _set(folder: Path, data: Path, groups: str) -> ImageSet:
    folder = folder.resolve()
    if not folder.is_relative_to(data.resolve()):
        raise OsasisError("Source and target must lie inside the data folder", found=folder, remedy="Choose --data.")
    place = folder.relative_to(data.resolve())
    return ImageSet(images=str(place / "images"), masks=str(place / "masks"), groups=groups)
