"""One image of a folder: its digest, its mask, and what the stylizer and the gate make of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import Decision, Gated, StructureGate
from nnunet_osasis.images.image import LoadedImage, image_stem
from nnunet_osasis.images.io import files_of, list_images, read_image
from nnunet_osasis.images.slices import slice_axis, slices_back, slices_first
from nnunet_osasis.runtime.storage import atomic_write, sha256_of_file, sha256_of_json
from nnunet_osasis.stylizer import OSASISStylizer

SOFT = 20
"""Values that a mask of labels reaching 255 may have; more are shades."""


def stylized(
    stylizer: OSASISStylizer,
    loaded: LoadedImage,
    gate: StructureGate | None,
    strength: float | None,
    direction: str,
    mask: Path | None,
) -> Gated:
    """Volumes are cut along their axis of coarsest spacing. The result has the axes of ``loaded.array``."""
    try:
        axis = slice_axis(loaded.spacing, loaded.array.shape[1:])
        sliced = slices_first(loaded.array, axis)
        wanted = stylizer.config.strength if strength is None else strength

        def stylize(amount: float) -> np.ndarray:
            return stylizer.stylize_array(sliced, strength=amount, direction=direction)

        if gate is None:
            result = Gated(stylize(wanted), Decision("full", wanted, wanted, {}, {}))
        else:
            labels = None if mask is None else _labels(slices_first(read_image(mask).array, axis))
            result = gate(sliced, stylize, wanted, labels)
        if result.decision.strength == 0:  # as stored: not even rounded to float32
            return replace(result, image=loaded.array)
        return replace(result, image=slices_back(result.image, axis))
    except OsasisError as error:
        raise OsasisError(
            f"{loaded.path} cannot be stylized: {error.rule}", found=error.found, remedy=error.remedy
        ) from error


def _labels(mask: np.ndarray) -> np.ndarray:
    """Labels of a mask ``(C, ...)``; a picture of grey levels (a soft rim, a JPEG) is cut at half its white."""
    labels = mask.max(axis=0)
    grey = labels.dtype == np.uint8 and labels.max() == 255 and len(np.unique(labels)) > SOFT
    return (labels > 127).astype(np.uint8) if grey else labels


def digest_of(path: Path) -> str:
    """Of all files the image is stored in (a header and its data)."""
    try:
        each = [sha256_of_file(part) for part in files_of(path)]
        return each[0] if len(each) == 1 else sha256_of_json(each)
    except OSError as error:
        raise OsasisError(
            "The images must stay while they are stylized",
            found=f"{error.strerror} at {path}",
            remedy="Put it back, or run the same command again without it; finished results are kept.",
        ) from error


def copy_mask(path: Path, pairs: dict[Path, Path], output: Path) -> None:
    """Copy the mask of ``path``, if it has one, unless a whole copy is there."""
    if path not in pairs:
        return
    mask, copy = pairs[path], output / "masks" / pairs[path].name
    if copy.is_file() and sha256_of_file(copy) == digest_of(mask):
        return
    _check_mask(read_image(path).array.shape, mask)
    atomic_write(copy, partial(shutil.copyfile, mask))


def masks_of(files: list[Path], masks: Path) -> dict[Path, Path]:
    by_stem = {image_stem(path): path for path in list_images(masks)}
    missing = [path.name for path in files if image_stem(path) not in by_stem]
    if missing:
        raise OsasisError(
            "Every image needs a mask of its name", found=f"none for {missing[0]} ({len(missing)} in all)"
        )
    return {path: by_stem[image_stem(path)] for path in files}


def _check_mask(shape: tuple[int, ...], mask: Path) -> None:
    found = read_image(mask).array.shape
    if found[1:] != shape[1:]:
        raise OsasisError(
            "A mask must have its image's size", found=f"{found[1:]} for {shape[1:]} in {mask}", remedy="Resample it."
        )
