"""The demo's own images: phantom scenes by two cameras, written as an nnU-Net user would have them."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

from nnunet_osasis.evaluation.demo.settings import SOURCE_DATASET, TRUTH_DATASET, DemoSettings
from nnunet_osasis.evaluation.demo.workspace import Workspace
from nnunet_osasis.nnunet.raw_dataset import write_images, write_masks, write_png, write_raw_dataset
from nnunet_osasis.synthetic.phantom.camera import CAMERA_A, CAMERA_B
from nnunet_osasis.synthetic.phantoms import render_scene, scene_seed

Views = dict[str, np.ndarray]


def write_phantom_data(settings: DemoSettings, workspace: Workspace) -> dict[str, Any]:
    """Render and write all images of the demo; returns what the report says about them.

    Training scenes, test scenes of either scanner and the scene of the one reference are all different. Both scanners'
    pictures carry sensor noise, except the truth that styles are compared with.
    """
    counts = {
        "train": settings.training_cases,
        "test_a": settings.test_cases,
        "test_b": settings.test_cases,
        "reference": 1,
    }
    cases = [(split, index) for split, count in counts.items() for index in range(count)]
    requests = [(scene_seed(split, index, base=settings.seed), settings.side) for split, index in cases]
    with ProcessPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        views = dict(zip(cases, pool.map(_views, requests, chunksize=4), strict=True))

    def pick(split: str, view: str, prefix: str) -> Views:
        return {f"{prefix}_{index:03d}": views[split, index][view] for index in range(counts[split])}

    masks = pick("train", "mask", "train")
    write_raw_dataset(workspace.raw / SOURCE_DATASET[1], pick("train", "a", "train"), masks)
    write_raw_dataset(workspace.raw / TRUTH_DATASET[1], pick("train", "b", "train"), masks)
    for split, view, prefix in (("test_a", "a", "source"), ("test_b", "b", "target")):
        write_images(workspace.test_images, pick(split, view, prefix))
        write_masks(workspace.test_masks, pick(split, "mask", prefix))
    write_images(workspace.truth, pick("train", "truth", "train") | pick("test_b", "truth", "target"))
    write_images(workspace.source_views, pick("test_b", "a", "target"))
    write_png(workspace.reference, views["reference", 0]["b"])
    return {
        "kind": "phantom",
        "reference": "one noisy picture of scanner B, of a scene used nowhere else",
        "training": settings.training_cases,
        "test_source": settings.test_cases,
        "test_target": settings.test_cases,
    }


def _views(request: tuple[int, int]) -> Views:
    """All pictures of one scene; a function of the module so that worker processes can be given it."""
    seed, size = request
    scene = render_scene(seed, size)
    return {
        "a": CAMERA_A.shoot(scene.light, noise_seed=2 * seed),
        "b": CAMERA_B.shoot(scene.light, noise_seed=2 * seed + 1),
        "truth": CAMERA_B.shoot(scene.light),
        "mask": scene.mask,
    }
