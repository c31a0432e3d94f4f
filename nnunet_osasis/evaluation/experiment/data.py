"""From the files of an experiment to what trainings see: pictures, training masks, references; never a test mask."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.config import Experiment, Target
from nnunet_osasis.evaluation.experiment.datasets import Case, files_in, read_masks, reduced, select_cases
from nnunet_osasis.evaluation.experiment.domains import REFERENCE_RULE, choose_reference
from nnunet_osasis.evaluation.experiment.leaks import check_splits
from nnunet_osasis.images.gray import ColorSurvey
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_json

__all__ = ["POOL", "SOURCE", "Case", "KnownTruth", "Prepared", "describe", "prepare", "select_cases", "test_masks"]

SOURCE = "source"
"""Name of the in-domain test among the test sets."""

POOL = " (reference pool)"
"""Ending of the names of sets that only lend a reference; several cameras may share one."""


@dataclass(frozen=True)
class KnownTruth:
    """The training images as a target's scanner shows them, in their order.

    Attributes:
        pictures: as the camera stores them, with noise: what the upper bound is trained on.
        masks: cut to the camera's field of view.
        clean: without noise where that is known, for the distance of styled images to the truth.
    """

    pictures: list[np.ndarray]
    masks: list[np.ndarray]
    clean: list[np.ndarray]

    @property
    def sha256(self) -> str:
        """SHA-256 of what the upper bound is trained on."""
        return sha256_of_json([sha256_of_array(array) for array in (*self.pictures, *self.masks)])


@dataclass(frozen=True)
class Prepared:
    """All pictures of an experiment at its working size, uint8 ``(C, H, W)``.

    Attributes:
        train_names: names of the training cases.
        train: pictures of the training set, in that order.
        train_masks: their masks, ``(H, W)`` of 0 and 1.
        tests: pictures to predict, by test set (``source`` and every target) and case.
        references: the one image per target that methods may see.
        truths: what is known of the training images at a target, by target.
        cases: where the files of each test set are; test masks are read from there by the scoring alone.
        report: manifests, near-duplicates, and what else the report says about the data.
    """

    train_names: list[str]
    train: list[np.ndarray]
    train_masks: list[np.ndarray]
    tests: dict[str, dict[str, np.ndarray]]
    references: dict[str, np.ndarray]
    truths: dict[str, KnownTruth]
    cases: dict[str, list[Case]]
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Channels of every picture."""
        return int(self.train[0].shape[0])

    def sha256(self, *tests: str) -> str:
        """Hash of the training set and the pictures of the named test sets."""
        arrays = [*self.train, *self.train_masks, *(a for test in tests for a in self.tests[test].values())]
        return sha256_of_json([sha256_of_array(array) for array in arrays])


def prepare(experiment: Experiment, data: Path) -> Prepared:
    """Read everything but test masks, check for leaks, choose the references.

    Raises:
        OsasisError: files are missing, sets leak (:func:`check_splits`), a reference is not there, or pictures have
            different numbers of channels.
    """
    side = experiment.budget.side
    train = select_cases(experiment.train, data, what="The training set")
    cases = {SOURCE: select_cases(experiment.test, data, what="The in-domain test set")}
    sets: dict[str, Sequence[Case]] = {"train": train, SOURCE: cases[SOURCE]}
    references, names = dict[str, np.ndarray](), dict[str, str]()
    for target in experiment.targets:
        pool = _pool(target, data)
        pictures = [_seen(target, case, side) for case in pool]
        chosen = _chosen(target, pool, pictures)
        references[target.name], names[target.name] = pictures[chosen], pool[chosen].name
        if target.camera:  # its pool is in no split
            sets[f"{target.name}{POOL}"], cases[target.name] = pool, cases[SOURCE]
        else:  # neither the reference nor another image of its patient is a test image
            cases[target.name] = [case for case in pool if case.group != pool[chosen].group]
            sets[target.name], sets[f"{target.name} (reference)"] = cases[target.name], [pool[chosen]]
        if not cases[target.name]:
            raise OsasisError("A target needs test images besides its reference", found=f"none in {target.name}")
    pools = [name for name in sets if name.endswith(POOL)]
    report = check_splits(sets, one_site=("train", SOURCE), may_share=pools)
    pictures = [case.image(side) for case in train]
    tests = {SOURCE: {case.name: case.image(side) for case in cases[SOURCE]}}
    for target in experiment.targets:
        tests[target.name] = {case.name: _seen(target, case, side) for case in cases[target.name]}
    masks = read_masks(train, side, what="The training set")
    truths = {t.name: _truth(t, train, pictures, masks) for t in experiment.targets if t.camera}
    for target in experiment.targets:
        if target.twins is not None:
            truths[target.name] = _twins(target, train, pictures, masks, tests[target.name], data)
    survey = ColorSurvey()
    for case, picture in zip(train, pictures, strict=True):
        survey.add(case.name, picture)
    survey.warn()
    _same_channels([*pictures, *references.values(), *(image for test in tests.values() for image in test.values())])
    report["references"] = {
        name: {"case": case, "rule": _rule(experiment, name), "sha256": sha256_of_array(references[name])}
        for name, case in names.items()
    }
    train_names = [case.name for case in train]
    return Prepared(train_names, pictures, masks, tests, references, truths, cases, report)


def test_masks(prepared: Prepared, experiment: Experiment, test: str) -> dict[str, np.ndarray]:
    """Return the masks of a test set, ``(H, W)`` of 0 and 1: for the scoring, and for pictures of what was scored."""
    side = experiment.budget.side
    cases = prepared.cases[test]
    masks = dict(zip((case.name for case in cases), read_masks(cases, side, what=f"The test set {test}"), strict=True))
    camera = next((target.camera for target in experiment.targets if target.name == test), None)
    if camera is not None:
        masks = {name: mask * camera.field_of_view(*mask.shape).astype(np.uint8) for name, mask in masks.items()}
    return masks


def _pool(target: Target, data: Path) -> list[Case]:
    if target.set is not None:
        return select_cases(target.set, data, what=f"Target {target.name}")
    assert target.reference_pool is not None  # noqa: S101  # camera targets have one
    return select_cases(target.reference_pool, data, what=f"The reference pool of {target.name}")


def _seen(target: Target, case: Case, side: int) -> np.ndarray:
    """What the target site stores of a case."""
    picture = case.image(side)
    return picture if target.camera is None else target.camera.shoot(picture, noise_seed=_noise_seed(target, case.name))


def _noise_seed(target: Target, name: str) -> int:
    return zlib.crc32(f"{target.name}/{name}".encode())


def _chosen(target: Target, pool: Sequence[Case], pictures: Sequence[np.ndarray]) -> int:
    if target.reference is None:
        return choose_reference(pictures)
    names = [case.name for case in pool]
    if target.reference not in names:
        raise OsasisError("The reference must be one of the target's images", found=target.reference)
    return names.index(target.reference)


def _rule(experiment: Experiment, name: str) -> str:
    target = next(target for target in experiment.targets if target.name == name)
    return REFERENCE_RULE if target.reference is None else "named in the experiment file"


def _truth(
    target: Target, cases: Sequence[Case], pictures: Sequence[np.ndarray], masks: Sequence[np.ndarray]
) -> KnownTruth:
    camera = target.camera
    assert camera is not None  # noqa: S101
    views = [camera.field_of_view(*mask.shape).astype(np.uint8) for mask in masks]
    noisy = [
        camera.shoot(picture, noise_seed=_noise_seed(target, case.name))
        for case, picture in zip(cases, pictures, strict=True)
    ]
    cut = [mask * view for mask, view in zip(masks, views, strict=True)]
    return KnownTruth(noisy, cut, [camera.shoot(picture) for picture in pictures])


def _twins(
    target: Target,
    cases: Sequence[Case],
    pictures: Sequence[np.ndarray],
    masks: list[np.ndarray],
    tests: Mapping[str, np.ndarray],
    data: Path,
) -> KnownTruth:
    """Read the twins of the training cases. Raises ``OsasisError`` for missing ones, other sizes, and test images."""
    files = files_in(data, str(target.twins))
    twins = []
    for case, picture in zip(cases, pictures, strict=True):
        if case.name not in files:
            raise OsasisError("Every training image needs a twin", found=f"none for {case.name} in {target.twins}")
        twin = reduced(case.read(files[case.name]), max(picture.shape[1:]))
        if twin.shape != picture.shape:
            raise OsasisError(
                "A twin must have the size of its training image", found=f"{twin.shape} of {files[case.name]}"
            )
        twins.append(twin)
    if {sha256_of_array(twin) for twin in twins} & {sha256_of_array(image) for image in tests.values()}:
        raise OsasisError("No image may be in two sets", found=f"a twin that is a test image of {target.name}")
    return KnownTruth(twins, masks, twins)


def _same_channels(images: Sequence[np.ndarray]) -> None:
    counts = {image.shape[0] for image in images}
    if len(counts) > 1:
        raise OsasisError(
            "All images of an experiment must have the same channels",
            found=f"{sorted(counts)}",
            remedy='Give --gray (in an experiment file: "gray": true in every set), or convert the gray ones to RGB.',
        )


def describe(prepared: Prepared) -> Mapping[str, Any]:
    """Return counts for the report."""
    return {
        "training_images": len(prepared.train),
        "test_images": {name: len(images) for name, images in prepared.tests.items()},
        "test_groups": {name: len({case.group for case in cases}) for name, cases in prepared.cases.items()},
    }
