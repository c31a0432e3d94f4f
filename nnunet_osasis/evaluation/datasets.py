"""Sets of pictures and masks for an experiment: selection, groups, reading at the working size, manifests."""

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
from nnunet_osasis.evaluation.domains import fits_domain
from nnunet_osasis.evaluation.experiment import ImageSet
from nnunet_osasis.images.image import image_stem
from nnunet_osasis.images.io import list_images, read_image
from nnunet_osasis.images.masks import binary_labels, one_channel
from nnunet_osasis.runtime.storage import sha256_of_array

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
