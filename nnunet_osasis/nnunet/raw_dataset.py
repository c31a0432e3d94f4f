"""nnU-Net raw datasets of 8-bit pictures, in the one form in which colour survives normalization."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.runtime.storage import atomic_write_bytes

# nnU-Net chooses the normalization by channel name: this one divides by 255, any other name for a colour
# channel means a z-score per image, which would hide the very shift that the demo is about.
CHANNEL_NAMES = {"0": "rgb_to_0_1", "1": "rgb_to_0_1", "2": "rgb_to_0_1"}


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


def read_masks(folder: Path) -> dict[str, np.ndarray]:
    """Read what :func:`write_masks` (or ``nnUNetv2_predict``) wrote, by case."""
    return {path.stem: read_png(path) for path in sorted(folder.glob("*.png"))}


def write_raw_dataset(
    folder: Path, images: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray], *, foreground: str = "polyp"
) -> None:
    """Write ``imagesTr``, ``labelsTr`` and, last, the ``dataset.json`` that makes the folder a dataset."""
    write_images(folder / "imagesTr", images)
    write_masks(folder / "labelsTr", masks)
    grey = next(iter(images.values())).ndim == 2
    atomic_write_json(
        folder / "dataset.json",
        {
            "channel_names": {"0": CHANNEL_NAMES["0"]} if grey else CHANNEL_NAMES,
            "labels": {"background": 0, foreground: 1},
            "numTraining": len(images),
            "file_ending": ".png",
        },
    )
