"""The cases of an experiment: which pictures and masks belong to a set, their groups, and their pixels."""

from __future__ import annotations

import fnmatch
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.config import Experiment, ImageSet
from nnunet_osasis.evaluation.experiment.domains import fits_domain
from nnunet_osasis.images.gray import to_gray
from nnunet_osasis.images.image import LoadedImage
from nnunet_osasis.images.io import read_image
from nnunet_osasis.images.masks import binary_labels, foreground_value, mask_on, require_one_foreground
from nnunet_osasis.images.pairs import images_by_stem
from nnunet_osasis.runtime.storage import sha256_of_array

DOMAIN_SIDE = 128
"""Longer side, in pixels, of the pictures that domain rules look at; enough for a median color."""


@dataclass(frozen=True)
class Case:
    """One picture with its mask, by path; pixels are read when they are asked for.

    Attributes:
        name: unique name without suffix.
        image_path: file of the picture.
        mask_path: file of its mask.
        group: patient or sequence, which must not be divided between training and test.
        gray: whether a picture of three channels is made one.
    """

    name: str
    image_path: Path
    mask_path: Path
    group: str
    gray: bool = False

    def image(self, side: int) -> np.ndarray:
        """``(C, H, W)`` uint8, C 1 or 3, the longer side at most ``side`` pixels."""
        return reduced(self.read(self.image_path), side)

    def read(self, path: Path) -> np.ndarray:
        """A picture ``(C, H, W)`` of this case, uint8, as stored or made gray."""
        return to_gray(read_picture(path)) if self.gray else read_picture(path)

    def mask(self, side: int) -> np.ndarray:
        """``(H, W)`` uint8 of 0 and 1, of the size of :meth:`image`; raises ``OsasisError`` as :meth:`read_mask`."""
        return self.read_mask(side)[0]

    def read_mask(self, side: int) -> tuple[np.ndarray, int | None]:
        """The mask as :meth:`mask` returns it, and the value of its foreground in the file.

        Raises:
            OsasisError: :mod:`nnunet_osasis.images.masks` refuses the mask.
        """
        try:
            numbers = mask_on(loaded_picture(self.image_path), read_image(self.mask_path))
            labels = binary_labels(numbers, None)
        except OsasisError as error:
            place = "" if str(self.mask_path) in str(error.found) else f" ({self.mask_path})"
            remedy = error.remedy if "--labels" not in str(error.remedy) else "Binarize the masks first."
            raise OsasisError(error.rule, found=f"{error.found}{place}", remedy=remedy) from None
        # The share of foreground in each pixel, cut at one half: thin vessels survive as far as the grid can hold them.
        share = _reduced_plane(labels * np.uint8(255), side)
        return np.asarray(share >= 128, dtype=np.uint8), foreground_value(numbers)


def read_pair(image: Path, mask: Path, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Read one picture with its mask as experiments see them; :class:`Case` says how, and what is refused.

    Args:
        image: file of the picture.
        mask: file of its mask.
        side: longer side in pixels at most.

    Returns:
        ``(C, H, W)`` uint8, and ``(H, W)`` uint8 of 0 and 1.
    """
    case = Case(image.stem, image, mask, image.stem)
    return case.image(side), case.mask(side)


def read_masks(cases: Sequence[Case], side: int, *, what: str) -> list[np.ndarray]:
    """Read the masks of a set as :meth:`Case.mask` does.

    Args:
        cases: the set.
        side: longer side of the images.
        what: the set, for messages.

    Raises:
        OsasisError: masks of several foreground values, which may be classes, or no foreground in any.
    """
    masks, values = zip(*(case.read_mask(side) for case in cases), strict=True)
    require_one_foreground(values, [case.mask_path for case in cases])
    if not any(mask.any() for mask in masks):
        raise OsasisError(
            f"{what}: the masks must hold foreground",
            found=f"none in {len(masks)} masks, as in {cases[0].mask_path}",
            remedy="0 is the background. Check whether masks and images were exchanged.",
        )
    return list(masks)


def read_picture(path: Path) -> np.ndarray:
    """Read a picture ``(C, H, W)`` uint8, C 1 or 3. Raises ``OsasisError`` for anything else."""
    return loaded_picture(path).array


def loaded_picture(path: Path) -> LoadedImage:
    """Read a picture with its geometry and orientation tag, as :func:`read_picture` does."""
    loaded = read_image(path)
    array = loaded.array
    if array.ndim != 3 or array.dtype != np.uint8 or array.shape[0] not in (1, 3):
        raise OsasisError(
            "Experiments take 8-bit pictures, gray or RGB",
            found=f"{array.dtype}, shape {array.shape} in {path}",
            remedy="For volumes and other units train with nnU-Net and score with osasis-evaluate.",
        )
    return loaded


def reduced(image: np.ndarray, side: int) -> np.ndarray:
    """Return a picture ``(C, H, W)`` uint8 made smaller (area average) where its longer side exceeds ``side``."""
    return np.stack([_reduced_plane(plane, side) for plane in image])


def _reduced_plane(plane: np.ndarray, side: int) -> np.ndarray:
    height, width = plane.shape
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(plane).resize(size, Image.Resampling.BOX))


def select_cases(images: ImageSet, data: Path, *, what: str) -> list[Case]:
    """Return the cases of a set, by name (numbers in their order).

    Args:
        images: which images and masks.
        data: folder that theirs lie in.
        what: the set, for messages.

    Raises:
        OsasisError: folders are missing, an image has no mask, or nothing is left.
    """
    pictures, masks = files_in(data, images.images), files_in(data, images.masks)
    names = [name for name in pictures if _included(name, images.include)][:: images.every]
    if alone := [name for name in names if name not in masks]:
        raise OsasisError(
            f"{what}: every image needs a mask",
            found=f"{len(alone)} without, such as {alone[0]}",
            remedy="Images and masks are paired by file name without suffix, in two folders.",
        )
    cases = [Case(name, pictures[name], masks[name], group_of(name, images.groups), images.gray) for name in names]
    if images.where:
        side = DOMAIN_SIDE
        cases = [case for case in cases if fits_domain(case.image(side), case.mask(side), images.where)]
    if not cases:
        raise OsasisError(f"{what} must hold at least one case", found=f"none in {images.images} that fits the rules")
    return cases


def group_of(name: str, groups: str | Sequence[int]) -> str:
    """Return the patient or sequence of a file name, see :class:`ImageSet`.

    Raises:
        OsasisError: the rule does not fit the name.
    """
    if not groups:
        return name
    if isinstance(groups, str):
        match = re.search(groups, name)
        if match is None:
            raise OsasisError("The group rule must fit every file name", found=f"{groups!r} does not fit {name}")
        return match.group(1) if match.groups() else match.group(0)
    if not name.isdecimal():
        raise OsasisError("Sequence starts need file names that are numbers", found=name)
    place = bisect_right(sorted(groups), int(name))
    return f"sequence {sorted(groups)[place - 1]}" if place else "sequence 0"


def manifest(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Return name, group, size and SHA-256 of the decoded pixels of every image; masks are not opened."""
    pictures = ((case, read_picture(case.image_path)) for case in cases)
    return [
        {"name": case.name, "group": case.group, "size": list(picture.shape), "sha256": sha256_of_array(picture)}
        for case, picture in pictures
    ]


def folders_of(experiment: Experiment, data: Path) -> list[Path]:
    """Return all folders that an experiment reads."""
    sets = [experiment.train, experiment.test]
    sets += [part for target in experiment.targets for part in (target.set, target.reference_pool) if part is not None]
    twins = [target.twins for target in experiment.targets if target.twins is not None]
    return [data / name for part in sets for name in (part.images, part.masks)] + [data / name for name in twins]


def files_in(data: Path, folder: str) -> dict[str, Path]:
    """Return ``{name without suffix: file}`` of a folder inside the data folder, in natural order.

    Raises:
        OsasisError: the folder is missing, empty or outside, or two files have one name.
    """
    path = (data / folder).resolve()
    if not path.is_relative_to(data.resolve()):
        raise OsasisError(
            "Folders of an experiment must lie inside the data folder", found=folder, remedy="Choose another --data."
        )
    return images_by_stem(path)


def _included(name: str, rules: Sequence[str]) -> bool:
    for rule in rules:
        bounds = re.fullmatch(r"(\d+)-(\d+)", rule)
        if bounds and name.isdecimal() and int(bounds[1]) <= int(name) <= int(bounds[2]):
            return True
        if name == rule or fnmatch.fnmatchcase(name, rule):
            return True
    return not rules
