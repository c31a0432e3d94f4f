"""A user's own two folders of images and masks, brought into the demo's form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.demo.settings import SOURCE_DATASET, DemoSettings
from nnunet_osasis.evaluation.demo.workspace import Workspace
from nnunet_osasis.evaluation.experiment.domains import choose_reference
from nnunet_osasis.images.image import image_stem
from nnunet_osasis.images.io import list_images, read_image
from nnunet_osasis.nnunet.raw_dataset import write_images, write_masks, write_png, write_raw_dataset
from nnunet_osasis.runtime.storage import sha256_of_file

TEST_FRACTION = 0.25

FEWEST_SOURCE, FEWEST_TARGET = 8, 3

FORM = "The folder needs images/ and masks/ with files of the same names: images/case1.png and masks/case1.png."


def fingerprint_pairs(folder: Path) -> list[list[str]]:
    """Name and SHA-256 of every image and mask, so that the demo notices changed data."""
    return [[str(path.relative_to(folder)), sha256_of_file(path)] for pair in find_pairs(folder) for path in pair]


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Images and masks of the same stem, by name.

    Raises:
        OsasisError: a folder is missing or empty, or an image or mask has no partner.
    """
    if not folder.is_dir():
        raise OsasisError("The data folder must exist", found=f"no folder {folder}", remedy=FORM)
    images, masks = (_by_stem(folder / kind) for kind in ("images", "masks"))
    alone = [path for stem, path in [*images.items(), *masks.items()] if stem not in images or stem not in masks]
    if alone:
        raise OsasisError(
            "Every image needs a mask of the same name, and every mask an image",
            found=f"{len(alone)} without a partner, the first one {alone[0]}",
            remedy=FORM,
        )
    return [(images[stem], masks[stem]) for stem in sorted(images)]


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise OsasisError("The data folder must hold images/ and masks/", found=f"no folder {folder}", remedy=FORM)
    paths = list_images(folder)
    found = {image_stem(path): path for path in paths}
    if len(found) < len(paths):
        raise OsasisError("File names must differ by more than their ending", found=f"twins in {folder}")
    return found


def read_pair(image_path: Path, mask_path: Path, side: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB ``(H, W, 3)`` uint8 and mask ``(H, W)`` uint8 0/1, reduced so that the longer side is at most ``side``.

    Grey images become RGB. Raises ``OsasisError`` for volumes, other than 8-bit images, and masks of another size.
    """
    image, mask = read_image(image_path).array, read_image(mask_path).array
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.dtype != np.uint8:
        raise OsasisError(
            "The demo takes 8-bit grey or RGB pictures",
            found=f"{image.dtype} {image.shape} in {image_path}",
            remedy="For other data train with nnUNetTrainerOSASIS directly.",
        )
    if mask.shape[1:] != image.shape[1:]:
        raise OsasisError(
            "Image and mask must have the same size",
            found=f"{image.shape[1:]} and {mask.shape[1:]} in {mask_path}",
            remedy="Resample the mask with nearest-neighbour interpolation.",
        )
    picture = Image.fromarray(np.moveaxis(np.broadcast_to(image, (3, *image.shape[1:])), 0, -1).copy())
    label = Image.fromarray(binarise(mask.max(axis=0)))
    scale = min(1.0, side / max(picture.size))
    size = (max(32, round(picture.width * scale)), max(32, round(picture.height * scale)))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
        label = label.resize(size, Image.Resampling.NEAREST)
    return np.array(picture), np.array(label)


def binarise(mask: np.ndarray) -> np.ndarray:
    """Foreground is what lies above 127, or above 0 where the mask's largest value is 1; uint8 0/1."""
    return (mask > (0 if mask.max() <= 1 else 127)).astype(np.uint8)


Pair = tuple[np.ndarray, np.ndarray]


def split_source(settings: DemoSettings, source: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Training and in-domain test pairs: the user's own split, or a random quarter kept for the test."""
    if settings.source_test is not None:
        return source, [read_pair(*paths, settings.own_side) for paths in find_pairs(settings.source_test)]
    order = np.random.default_rng(settings.seed).permutation(len(source))
    held_out = max(2, round(TEST_FRACTION * len(source)))
    return [source[i] for i in order[held_out:]], [source[i] for i in order[:held_out]]


def write_own_data(settings: DemoSettings, workspace: Workspace) -> dict[str, Any]:
    """Read, check, split and write the user's images; returns what the report says about them.

    Of the source images a quarter, drawn with the seed, is kept for the in-domain test, unless the settings name
    images for it. One target image becomes the
    reference and is left out of the target test.

    Raises:
        OsasisError: fewer than 8 source or 3 target images, or what :func:`find_pairs` and :func:`read_pair` refuse.
    """
    if settings.source is None or settings.target is None:
        raise OsasisError("Own images need both --source and --target", found=f"{settings.source}, {settings.target}")
    source_paths, target_paths = find_pairs(settings.source), find_pairs(settings.target)
    if len(source_paths) < FEWEST_SOURCE or len(target_paths) < FEWEST_TARGET:
        raise OsasisError(
            f"The demo needs at least {FEWEST_SOURCE} source and {FEWEST_TARGET} target images",
            found=f"{len(source_paths)} and {len(target_paths)}",
        )
    source = [read_pair(*paths, settings.own_side) for paths in source_paths]
    target = [read_pair(*paths, settings.own_side) for paths in target_paths]
    training, test = split_source(settings, source)
    chosen = choose_reference([np.moveaxis(image, -1, 0) for image, _ in target])
    splits = {
        "train": training,
        "source": test,
        "target": [pair for i, pair in enumerate(target) if i != chosen],
    }
    images, masks = (
        {split: {f"{split}_{i:03d}": pair[part] for i, pair in enumerate(pairs)} for split, pairs in splits.items()}
        for part in (0, 1)
    )
    write_raw_dataset(workspace.raw / SOURCE_DATASET[1], images["train"], masks["train"])
    for split in ("source", "target"):
        write_images(workspace.test_images, images[split])
        write_masks(workspace.test_masks, masks[split])
    write_png(workspace.reference, target[chosen][0])
    return {
        "kind": "own",
        "reference": f"{target_paths[chosen][0].name}, the target image whose median colour (CIELAB) is nearest to "
        "that of all target images; it is not a test image, and no target mask was used to choose it",
        "training": len(splits["train"]),
        "test_source": len(splits["source"]),
        "test_target": len(splits["target"]),
        "side": settings.own_side,
    }
