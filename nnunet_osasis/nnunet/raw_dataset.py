"""nnU-Net raw datasets of 8-bit pictures, and a small U-Net to train on them."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.runtime.storage import atomic_write_bytes

CHANNEL_NAMES = {"0": "rgb_to_0_1", "1": "rgb_to_0_1", "2": "rgb_to_0_1"}
"""Channel names of color pictures in ``dataset.json``.

nnU-Net chooses the normalization by them: this one divides by 255, any other name for a color channel means a z-score
per image, which would hide the shift in color between two sites.
"""

MIN_STAGES = 3
"""Smallest number of stages of nnU-Net's networks.

Its deep supervision leaves the lowest map out; with two stages that is the only one, and the loss becomes NaN.
"""


def write_png(path: Path, picture: np.ndarray) -> Path:
    """Write ``(H, W)`` or ``(H, W, 3)`` uint8 as PNG, atomically."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return atomic_write_bytes(path, buffer.getvalue())


def read_png(path: Path) -> np.ndarray:
    """Read a picture as stored, ``(H, W)`` or ``(H, W, 3)`` uint8."""
    with Image.open(path) as opened:
        return np.array(opened)


def write_images(folder: Path, images: Mapping[str, np.ndarray]) -> None:
    """Write pictures ``(H, W, 3)`` or ``(H, W)`` uint8 under nnU-Net's file names (``CASE_0000.png``: all channels)."""
    for case, image in images.items():
        write_png(folder / f"{case}_0000.png", image)


def read_images(folder: Path) -> dict[str, np.ndarray]:
    """Read what :func:`write_images` wrote, by case."""
    return {path.name.removesuffix("_0000.png"): read_png(path) for path in sorted(folder.glob("*_0000.png"))}


def write_masks(folder: Path, masks: Mapping[str, np.ndarray]) -> None:
    """Write masks ``(H, W)`` uint8 0/1 under nnU-Net's file names."""
    for case, mask in masks.items():
        write_png(folder / f"{case}.png", mask)


def write_raw_dataset(
    folder: Path, images: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray], *, foreground: str = "polyp"
) -> None:
    """Write ``imagesTr``, ``labelsTr`` and, last, the ``dataset.json`` that makes the folder a dataset."""
    write_images(folder / "imagesTr", images)
    write_masks(folder / "labelsTr", masks)
    gray = next(iter(images.values())).ndim == 2
    atomic_write_json(
        folder / "dataset.json",
        {
            "channel_names": {"0": CHANNEL_NAMES["0"]} if gray else CHANNEL_NAMES,
            "labels": {"background": 0, foreground: 1},
            "numTraining": len(images),
            "file_ending": ".png",
        },
    )


def small_configuration(full: dict[str, Any], features: Sequence[int], patch: int, batch: int) -> dict[str, Any]:
    """A configuration that inherits from ``2d`` with fewer ``features``, stages and pixels per patch.

    Args:
        full: the configuration ``2d`` of nnU-Net's plans.
        features: numbers of channels from the top stage down; stages that ``full`` does not have are left out.
        patch: side of the square patches, in pixels.
        batch: number of patches in a batch.

    Raises:
        OsasisError: for fewer than ``MIN_STAGES`` stages.
    """
    architecture = copy.deepcopy(full["architecture"])
    network = architecture["arch_kwargs"]
    stages = min(len(features), network["n_stages"])
    if stages < MIN_STAGES:
        raise OsasisError(
            "A network of nnU-Net needs at least three stages",
            found=f"{len(features)} features, {network['n_stages']} stages planned",
            remedy="Give three features or more, and images of at least 32 pixels.",
        )
    network.update(
        n_stages=stages,
        features_per_stage=list(features[:stages]),
        kernel_sizes=network["kernel_sizes"][:stages],
        strides=network["strides"][:stages],
        n_conv_per_stage=network["n_conv_per_stage"][:stages],
        n_conv_per_stage_decoder=network["n_conv_per_stage_decoder"][: stages - 1],
    )
    return {
        "inherits_from": "2d",
        "batch_size": batch,
        "patch_size": [patch, patch],
        "architecture": architecture,
    }
