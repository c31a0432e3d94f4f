"""Sets of pictures and masks for an experiment: selection, groups, reading at the working size, manifests.

Leak checks: the same picture, or nearly the same, in two sets; groups divided between training and test.

From the files of an experiment to what trainings see: pictures, training masks, references; never a test mask.
"""

from __future__ import annotations

import fnmatch
import re
import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.config import Experiment, ImageSet, Target
from nnunet_osasis.evaluation.experiment.domains import REFERENCE_RULE, choose_reference, fits_domain
from nnunet_osasis.images.image import image_stem
from nnunet_osasis.images.io import list_images, read_image
from nnunet_osasis.images.masks import binary_labels, one_channel
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_json

FORM = "Images and masks are paired by file name without its ending, in two folders."


@dataclass(frozen=True)
class Case:
    """One picture with its mask, by path; pixels are read when they are asked for.

    Attributes:
        name: unique stem. group: what must not be divided between training and test.
    """

    name: str
    image_path: Path
    mask_path: Path
    group: str

    def image(self, side: int) -> np.ndarray:
        """``(C, H, W)`` uint8, C 1 or 3, the longer side at most ``side`` pixels."""
        return reduced(read_picture(self.image_path), side)

    def mask(self, side: int) -> np.ndarray:
        """``(H, W)`` uint8 of 0 and 1, of the size of :meth:`image`.

        Raises ``OsasisError`` for masks of another size than their image, and for those that
        :func:`nnunet_osasis.images.masks.binary_labels` finds doubtful.
        """
        picture, mask = read_picture(self.image_path), one_channel(read_picture(self.mask_path))
        if mask.shape != picture.shape[1:]:
            raise OsasisError(
                "A mask must have the size of its image",
                found=f"{mask.shape} for {picture.shape[1:]} ({self.mask_path})",
                remedy="Resample the mask with nearest neighbours, or leave the case out.",
            )
        try:
            labels = binary_labels(mask, None)
        except OsasisError as error:
            raise OsasisError(
                error.rule, found=f"{error.found} ({self.mask_path})", remedy="Binarise the masks first."
            ) from None
        return np.asarray(_resize(labels > 0, side), dtype=np.uint8)


def read_picture(path: Path) -> np.ndarray:
    """``(C, H, W)`` uint8, C 1 or 3. Raises ``OsasisError`` for volumes, other bit depths or channel counts."""
    array = read_image(path).array
    if array.ndim != 3 or array.dtype != np.uint8 or array.shape[0] not in (1, 3):
        raise OsasisError(
            "Experiments take 8-bit pictures, grey or RGB",
            found=f"{array.dtype}, shape {array.shape} in {path}",
            remedy="For volumes and other units train with nnU-Net and score with osasis-evaluate.",
        )
    return array


def reduced(image: np.ndarray, side: int) -> np.ndarray:
    """``image`` ``(C, H, W)`` uint8 made smaller, if need be, so that its longer side is ``side`` (area average)."""
    height, width = _size(image.shape[1:], side)
    if (height, width) == image.shape[1:]:
        return image
    planes = [np.array(Image.fromarray(p).resize((width, height), Image.Resampling.BOX)) for p in image]
    return np.stack(planes)


def _resize(mask: np.ndarray, side: int) -> np.ndarray:
    height, width = _size(mask.shape, side)
    if (height, width) == mask.shape:
        return mask
    # The share of foreground in each pixel, cut at one half: thin vessels survive as far as the grid can hold them.
    share = Image.fromarray(mask * np.uint8(255)).resize((width, height), Image.Resampling.BOX)
    return np.array(share) >= 128


def _size(shape: Sequence[int], side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def select_cases(images: ImageSet, data: Path, *, what: str) -> list[Case]:
    """The cases of a set, by name (numbers in their order).

    Raises ``OsasisError`` when folders are missing, an image has no mask, or nothing is left.
    """
    by_stem, masks = (_by_stem(_inside(data, folder)) for folder in (images.images, images.masks))
    stems = sorted((stem for stem in by_stem if _included(stem, images.include)), key=_natural)[:: images.every]
    if alone := [stem for stem in stems if stem not in masks]:
        raise OsasisError(
            f"{what}: every image needs a mask", found=f"{len(alone)} without, such as {alone[0]}", remedy=FORM
        )
    cases = [Case(stem, by_stem[stem], masks[stem], group_of(stem, images.groups)) for stem in stems]
    if images.where:
        side = 128  # enough for a median colour
        cases = [case for case in cases if fits_domain(case.image(side), case.mask(side), images.where)]
    if not cases:
        raise OsasisError(f"{what} must hold at least one case", found=f"none in {images.images} that fits the rules")
    return cases


def group_of(stem: str, groups: str | Sequence[int]) -> str:
    """The patient or sequence of a stem, see :class:`ImageSet`. Raises ``OsasisError`` where the rule does not fit."""
    if not groups:
        return stem
    if isinstance(groups, str):
        found = re.search(groups, stem)
        if found is None:
            raise OsasisError("The group rule must fit every file name", found=f"{groups!r} does not fit {stem}")
        return found.group(1) if found.groups() else found.group(0)
    if not stem.isdigit():
        raise OsasisError("Sequence starts need file names that are numbers", found=stem)
    place = bisect_right(sorted(groups), int(stem))
    return f"sequence {sorted(groups)[place - 1]}" if place else "sequence 0"


def manifest(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Name, group, size and SHA-256 of the decoded pixels of every image; masks are not opened."""
    rows = []
    for case in cases:
        picture = read_picture(case.image_path)
        rows.append(
            {
                "name": case.name,
                "group": case.group,
                "size": list(picture.shape),
                "sha256": sha256_of_array(picture),
            }
        )
    return rows


def _by_stem(folder: Path) -> dict[str, Path]:
    paths = list_images(folder)
    found = {image_stem(path): path for path in paths}
    if len(found) < len(paths):
        twin = next(path for path in paths if found[image_stem(path)] != path)
        raise OsasisError(
            "File names must differ by more than their ending", found=f"{twin.name} and its twin in {folder}"
        )
    return found


def _inside(data: Path, folder: str) -> Path:
    path = (data / folder).resolve()
    if not path.is_relative_to(data.resolve()):
        raise OsasisError(
            "Folders of an experiment must lie inside the data folder", found=folder, remedy="Choose another --data."
        )
    return path


def _included(stem: str, rules: Sequence[str]) -> bool:
    for rule in rules:
        found = re.fullmatch(r"(\d+)-(\d+)", str(rule))
        if found and stem.isdigit() and int(found.group(1)) <= int(stem) <= int(found.group(2)):
            return True
        if stem == str(rule) or fnmatch.fnmatchcase(stem, str(rule)):
            return True
    return not rules


def _natural(stem: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", stem) if part]


THUMBNAIL = 24  # pixels

FEWEST = 8  # images; of fewer the mean would be half of the image itself

NEAR = 0.97
"""Correlation, of what two thumbnails do not share with all others, above which images are called nearly the same."""


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A picture ``(C, H, W)`` uint8 as 24 x 24 grey values of zero mean and unit length, in one row."""
    grey = Image.fromarray(image.astype(np.float32).mean(axis=0))
    small = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), dtype=np.float64)
    return _unit((small - small.mean()).ravel())


def particulars(thumbnails: np.ndarray) -> np.ndarray:
    """Thumbnails ``(N, pixels)`` without their mean image, of unit length again.

    All eyes show a bright disc on black, all endoscopes the same frame: what is common is no sign of a copy.
    """
    if len(thumbnails) < FEWEST:
        return thumbnails
    return np.stack([_unit(row) for row in thumbnails - thumbnails.mean(axis=0)])


def _unit(row: np.ndarray) -> np.ndarray:
    return np.asarray(row / max(float(np.linalg.norm(row)), 1e-9))


def check_splits(
    sets: Mapping[str, Sequence[Case]], *, one_site: Sequence[str] = (), may_share: Sequence[str] = ()
) -> dict[str, Any]:
    """Look for leaks between the named sets.

    Args:
        one_site: sets whose groups are the same people wherever their files lie. may_share: sets that may hold the
            same images as each other.

    Returns ``{"manifest": {set: rows}, "near_duplicates": [{"first", "second", "correlation"}]}``; near-duplicates
    within one set are nobody's leak and not listed.

    Raises:
        OsasisError: identical decoded pixels, or one group, in two sets.
    """
    manifests = {name: manifest(cases) for name, cases in sets.items()}
    owners = [name for name, cases in sets.items() for _ in cases]
    rows = particulars(np.stack([thumbnail(read_picture(c.image_path)) for cases in sets.values() for c in cases]))
    thumbnails = {name: rows[[owner == name for owner in owners]] for name in sets}
    near = []
    for first, second in combinations(sets, 2):
        if first in may_share and second in may_share:
            continue
        hashes = {row["sha256"]: row["name"] for row in manifests[first]}
        for row in manifests[second]:
            if row["sha256"] in hashes:
                raise OsasisError(
                    "No image may be in two sets",
                    found=f"{hashes[row['sha256']]} of {first} and {row['name']} of {second} have equal pixels",
                    remedy="Leave it out of one of them.",
                )
        _refuse_shared_groups(sets, first, second, one_site=first in one_site and second in one_site)
        correlation = thumbnails[first] @ thumbnails[second].T
        for i, j in np.argwhere(correlation > NEAR):
            near.append(
                {
                    "first": f"{first}/{sets[first][i].name}",
                    "second": f"{second}/{sets[second][j].name}",
                    "correlation": round(float(correlation[i, j]), 4),
                }
            )
    return {"manifest": manifests, "near_duplicates": near}


def _refuse_shared_groups(sets: Mapping[str, Sequence[Case]], first: str, second: str, *, one_site: bool) -> None:
    """Only sets of one site can share a group: the same patient number elsewhere is another patient."""
    folders = [{case.image_path.parent for case in sets[name]} for name in (first, second)]
    if folders[0].isdisjoint(folders[1]) and not (one_site and all(c.group != c.name for c in sets[first])):
        return
    shared = {case.group for case in sets[first]} & {case.group for case in sets[second]}
    if shared:
        raise OsasisError(
            "A patient or sequence must not be in two sets",
            found=f"{sorted(shared)[0]} in {first} and {second}",
            remedy="Move the whole group to one side.",
        )


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
        train, train_masks: the source's training set; masks ``(H, W)`` of 0 and 1.
        tests: pictures to predict, by test set (``source`` and every target) and case.
        references, reference_names: the one image per target that methods may see.
        truths: for camera targets. cases: where the files are; test masks are read from there by the scoring alone.
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
        """Of the training set and the pictures of the named test sets."""
        arrays = [*self.train, *self.train_masks, *(a for test in tests for a in self.tests[test].values())]
        return sha256_of_json([sha256_of_array(array) for array in arrays])


def prepare(experiment: Experiment, data: Path) -> Prepared:
    """Read everything but test masks, check for leaks, choose the references.

    Raises ``OsasisError`` for missing files, leaks (:func:`check_splits`), a reference that is not there, or pictures
    of different channel counts.
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
    masks = [case.mask(side) for case in train]
    truths = {t.name: _truth(t, train, pictures, masks) for t in experiment.targets if t.camera}
    for target in experiment.targets:
        if target.twins is not None:
            truths[target.name] = _twins(target, train, pictures, masks, tests[target.name], data)
    _same_channels([*pictures, *references.values(), *(image for test in tests.values() for image in test.values())])
    report["references"] = {
        name: {"case": case, "rule": _rule(experiment, name), "sha256": sha256_of_array(references[name])}
        for name, case in names.items()
    }
    train_names = [case.name for case in train]
    return Prepared(train_names, pictures, masks, tests, references, truths, cases, report)


def test_masks(prepared: Prepared, experiment: Experiment, test: str) -> dict[str, np.ndarray]:
    """The masks of a test set, ``(H, W)`` of 0 and 1: for the scoring, and for pictures of what was scored."""
    side = experiment.budget.side
    masks = {case.name: case.mask(side) for case in prepared.cases[test]}
    camera = next((target.camera for target in experiment.targets if target.name == test), None)
    if camera is not None:
        masks = {name: mask * camera.field_of_view(*mask.shape).astype(np.uint8) for name, mask in masks.items()}
    return masks


def _pool(target: Target, data: Path) -> list[Case]:
    if target.set is not None:
        return select_cases(target.set, data, what=f"Target {target.name}")
    if target.reference_pool is None:
        raise OsasisError("A camera target needs a reference pool", found=target.name)
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
    found = [i for i, case in enumerate(pool) if case.name == target.reference]
    if not found:
        raise OsasisError("The reference must be one of the target's images", found=target.reference)
    return found[0]


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
    """The twins of the training cases. Raises ``OsasisError`` for missing ones, other sizes, and test images."""
    by_stem = _by_stem(_inside(data, str(target.twins)))
    twins = []
    for case, picture in zip(cases, pictures, strict=True):
        if case.name not in by_stem:
            raise OsasisError("Every training image needs a twin", found=f"none for {case.name} in {target.twins}")
        twin = reduced(read_picture(by_stem[case.name]), max(picture.shape[1:]))
        if twin.shape != picture.shape:
            raise OsasisError(
                "A twin must have the size of its training image", found=f"{twin.shape} of {by_stem[case.name]}"
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
            remedy="Convert the grey ones to RGB, or the other way round.",
        )


def describe(prepared: Prepared) -> Mapping[str, Any]:
    """Counts for the report."""
    return {
        "training_images": len(prepared.train),
        "test_images": {name: len(images) for name, images in prepared.tests.items()},
        "test_groups": {name: len({case.group for case in cases}) for name, cases in prepared.cases.items()},
    }
