"""A small nnU-Net dataset in folders of its own, planned and preprocessed by nnU-Net: for the scripts that train."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnunet_osasis.nnunet.raw_dataset import small_configuration, write_raw_dataset
from nnunet_osasis.synthetic.phantoms import render_pair, scene_seed

DATASET, CONFIGURATION = "Dataset951_Speed", "2d_speed"


def phantoms(count: int, size: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Rendered scenes by one camera, with noise, and their masks: ``(size, size, 3)`` and ``(size, size)`` uint8."""
    images, masks = {}, {}
    for index in range(count):
        name = f"case_{index:03d}"
        images[name], _, masks[name] = render_pair(scene_seed("train", index), size)
    return images, masks


def from_folders(
    image_folder: Path, mask_folder: Path, count: int, size: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The first pictures of a folder whose masks have the same stem, at ``size``."""
    images, masks = {}, {}
    by_stem = {path.stem: path for path in mask_folder.iterdir()}
    for path in [path for path in sorted(image_folder.iterdir()) if path.stem in by_stem][:count]:
        with Image.open(path) as image, Image.open(by_stem[path.stem]) as mask:
            name = f"case_{len(images):03d}"
            images[name] = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BOX))
            masks[name] = (np.asarray(mask.convert("L").resize((size, size), Image.Resampling.NEAREST)) > 127).astype(
                np.uint8
            )
    return images, masks


def make_home(
    root: Path, images: dict[str, np.ndarray], masks: dict[str, np.ndarray], *, patch: int, batch: int, osasis: dict
) -> Path:
    """Write, plan and preprocess; returns the preprocessed folder. nnU-Net's three variables point there from now on.

    Every fourth case is validated. The configuration ``2d_speed`` is nnU-Net's own with a smaller network.
    """
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(root / name)
    write_raw_dataset(root / "raw" / DATASET, images, masks)
    number = int(DATASET[7:10])
    workers = os.environ.pop("nnUNet_n_proc_DA", None)  # the planner takes it for a number of threads
    extract_fingerprints([number], num_processes=1, verbose=False)
    plan_experiments([number])
    if workers is not None:
        os.environ["nnUNet_n_proc_DA"] = workers
    folder = root / "preprocessed" / DATASET
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    small = small_configuration(plans["configurations"]["2d"], (16, 32, 64, 128), patch, batch)
    plans["configurations"][CONFIGURATION] = small | {"osasis": osasis}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    preprocess([number], configurations=["2d"], num_processes=[1], verbose=False)
    cases = sorted(images)
    split = {"train": [c for i, c in enumerate(cases) if i % 4], "val": cases[::4]}
    (folder / "splits_final.json").write_text(json.dumps([split]))
    return folder


def make_trainer(name: str, folder: Path, iterations: int, device: str, osasis: dict[str, Any] | None = None) -> Any:
    """A trainer as ``nnUNetv2_train`` makes it, ready for its first epoch of so many training steps."""
    import torch
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    if osasis is not None:
        plans["configurations"][CONFIGURATION]["osasis"] = osasis
    torch.manual_seed(0)
    np.random.seed(0)
    trainer = recursive_find_trainer_class_by_name(name)(
        plans | {"continue_training": False}, CONFIGURATION, 0, json.loads((folder / "dataset.json").read_text()),
        device=torch.device(device),
    )  # fmt: skip
    trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = iterations, max(1, iterations // 5)
    trainer.plot_network_architecture = lambda: None
    trainer.on_train_start()
    return trainer
