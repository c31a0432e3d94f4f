"""Tiny sites for experiments: a disc on a coloured ground, thirty-two pixels wide, and experiment files about them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnunet_osasis.evaluation.experiment.config import Experiment, experiment_from_json

SIDE = 32
TINT = np.array([170.0, 110.0, 80.0])


def picture(seed: int, *, size: tuple[int, int] = (SIDE, SIDE), tint: Iterable[float] = TINT) -> np.ndarray:
    """``(3, H, W)`` uint8: a tinted, uneven ground with a darker disc."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : size[0] * 1j, 0 : 1 : size[1] * 1j]
    a, b, c = rng.uniform(2, 9, 3)
    ground = 1 + 0.25 * np.sin(a * x + b * y + c) + rng.normal(0, 0.03, size)
    ground = np.where(disc(seed, size=size) > 0, 0.55 * ground, ground)
    return np.clip(np.array(list(tint))[:, None, None] * ground, 0, 255).astype(np.uint8)


def disc(seed: int, *, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """The mask of :func:`picture`, ``(H, W)`` of 0 and 1."""
    rng = np.random.default_rng([seed, 7])
    y, x = np.mgrid[0 : 1 : size[0] * 1j, 0 : 1 : size[1] * 1j]
    cy, cx = rng.uniform(0.35, 0.65, 2)
    return (np.hypot(y - cy, x - cx) < rng.uniform(0.15, 0.3)).astype(np.uint8)


def save(path: Path, array: np.ndarray) -> Path:
    """A picture ``(C, H, W)`` or a mask ``(H, W)`` as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.moveaxis(array, 0, -1).squeeze() if array.ndim == 3 else array
    Image.fromarray(array).save(path)
    return path


def write_site(folder: Path, names: Iterable[str], *, first: int = 0, tint: Iterable[float] = TINT) -> Path:
    """``images`` and ``masks`` of 0 and 255 for the names; pictures of different ``first`` differ."""
    for position, name in enumerate(names):
        save(folder / "images" / f"{name}.png", picture(first + position, tint=tint))
        save(folder / "masks" / f"{name}.png", disc(first + position) * np.uint8(255))
    return folder


def image_set(folder: str, **more: Any) -> dict[str, Any]:
    """A set as the experiment file writes it."""
    return {"images": f"{folder}/images", "masks": f"{folder}/masks", **more}


def write_data(root: Path) -> Path:
    """Two sites: ``a`` with images 1 to 12, ``b`` of another colour with images 1 to 4."""
    write_site(root / "a", (str(i) for i in range(1, 13)))
    write_site(root / "b", (str(i) for i in range(1, 5)), first=50, tint=(90, 150, 160))
    return root


def values(**changes: Any) -> dict[str, Any]:
    """A small experiment on :func:`write_data` as its file holds it: train 1-6, test 7-9, pool 10-12, target b."""
    return {
        "name": "small",
        "train": image_set("a", include=["1-6"]),
        "test": image_set("a", include=["7-9"]),
        "targets": [
            {"name": "camera", "camera": {"seed": 3}, "reference_pool": image_set("a", include=["10-12"])},
            {"name": "b", "set": image_set("b")},
        ],
        "networks": ["unet"],
        "methods": ["none", "identity"],
        "seeds": [0],
        "budget": {"side": 32, "patch": 32, "iterations": 2, "batch_size": 2, "features": [4, 8]},
        "metrics": ["dice", "iou", "specificity", "mae", "hd95"],
        **changes,
    }


def experiment(**changes: Any) -> Experiment:
    """The same, read."""
    return experiment_from_json(values(**changes))
