"""The experiment of a user who gives two folders and no file."""

from __future__ import annotations

import re
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
from nnunet_osasis.evaluation.experiment.data import SOURCE, select_cases

TEST_SHARE = 0.25
"""Share of the source's groups that is kept for the in-domain test."""

MIN_TRAIN, MIN_TEST, MIN_TARGET = 6, 3, 3
"""Fewest images of each set."""

ALL_KINDS = tuple(kind for kind in KINDS if kind != "truth")
"""Every kind of method but the upper bound, which needs a known truth."""


def folders_experiment(
    source: Path,
    target: Path,
    data: Path,
    *,
    source_test: Path | None = None,
    groups: str = "",
    kinds: Sequence[str] = ALL_KINDS,
    seeds: Sequence[int] = (0, 1, 2),
    split_seed: int = 0,
    budget: Budget | None = None,
    stylizer: StylizerSpec | None = None,
    gray: bool = False,
) -> Experiment:
    """Return the experiment on folders with ``images`` and ``masks``: nnU-Net's U-Net, all methods, three trainings.

    Args:
        source: folder of the source site.
        target: folder of the other site.
        data: folder that holds both.
        source_test: folder of the in-domain test; None keeps a quarter of the source's groups (patients; without a
            rule every image is its own group) for it.
        groups: regular expression that names the group in a file name.
        kinds: methods to compare.
        seeds: one per training of a method.
        split_seed: seed of the draw of the in-domain test.
        budget: length of the trainings.
        stylizer: how stylizers are made.
        gray: make one channel of images of three.

    Raises:
        OsasisError: folders outside ``data``, or fewer than 6 training, 3 in-domain test or 3 target images.
    """
    train, other = (_image_set(folder, data, groups, gray=gray) for folder in (source, target))
    if source_test is not None:
        test = _image_set(source_test, data, groups, gray=gray)
    else:
        cases = select_cases(train, data, what="The source")
        names = sorted({case.group for case in cases})
        order = np.random.default_rng(split_seed).permutation(len(names))
        kept = {names[i] for i in order[: max(1, round(TEST_SHARE * len(names)))]}
        test = replace(train, include=tuple(case.name for case in cases if case.group in kept))
        train = replace(train, include=tuple(case.name for case in cases if case.group not in kept))
    for images, least, what in ((train, MIN_TRAIN, "training"), (test, MIN_TEST, "in-domain test"),
                                (other, MIN_TARGET, "target")):  # fmt: skip
        # An empty ``include`` takes all images, which is not what an empty half of a split means.
        is_empty = source_test is None and what != "target" and not images.include
        count = 0 if is_empty else len(select_cases(images, data, what=f"The {what} set"))
        if count < least:
            raise OsasisError(f"There must be at least {least} {what} images", found=count)
    return Experiment(
        name=f"{source.name} to {target.name}",
        train=train,
        test=test,
        targets=(Target(name=_target_name(target), set=other),),
        networks=(NetworkSpec(name="unet"),),
        methods=tuple(MethodSpec(name=kind, kind=kind) for kind in kinds),
        seeds=tuple(seeds),
        budget=budget or Budget(),
        stylizer=stylizer or StylizerSpec(),
    )


def _target_name(folder: Path) -> str:
    """Return the folder's name as the target's, without characters that names of targets may not have."""
    name = "_".join(re.findall(r"[A-Za-z0-9]+", folder.name))[:64].strip("_")
    return "target" if name in ("", SOURCE) else name


def _image_set(folder: Path, data: Path, groups: str, *, gray: bool) -> ImageSet:
    folder = folder.resolve()
    if not folder.is_relative_to(data.resolve()):
        raise OsasisError("Source and target must lie inside the data folder", found=folder, remedy="Choose --data.")
    place = folder.relative_to(data.resolve())
    return ImageSet(images=str(place / "images"), masks=str(place / "masks"), groups=groups, gray=gray)
