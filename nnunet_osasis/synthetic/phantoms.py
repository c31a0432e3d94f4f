"""Two-scanner phantom data with known truth: one rendered scene, photographed by two cameras.

A scene is a bowel segment with folds, vessels, highlights and one or two polyps
(:mod:`nnunet_osasis.synthetic.phantom`). Because both cameras look at the same light, the target-style version of every
source image is known exactly, which no clinical data set offers. Phantoms show that a pipeline works; they prove
nothing about patients.

>>> image_a, image_b, mask = render_pair(0, size=48)
>>> image_a.shape, image_b.dtype.name, sorted(set(mask.ravel().tolist()))
((48, 48, 3), 'uint8', [0, 1])
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.synthetic.phantom.camera import CAMERA_A, CAMERA_B
from nnunet_osasis.synthetic.phantom.scene import draw_bowel
from nnunet_osasis.synthetic.phantom.shading import render_light

DEFAULT_SIZE = 96
"""Side of a scene in pixels."""

MIN_SIDE_PX = 32
"""Smallest side of a scene in pixels."""

POLYP_AREA = (0.025, 0.25)
"""Fractions of the image between which polyps lie; outside them a scene is drawn again."""

SLIVER = 0.005
"""Fraction of the image below which a visible part of a polyp counts as hidden."""

SCENES_PER_SPLIT = 10_000
"""Number of seeds reserved for each split."""

SPLITS = ("train", "test_a", "test_b", "reference")
"""Names of the sets of scenes, which share no seed."""


@dataclass(frozen=True)
class Scene:
    """A rendered scene.

    Attributes:
        light: ``(H, W, 3)`` float64, linear, about 0 to 1, highlights above.
        mask: ``(H, W)`` uint8, 1 on polyps.
    """

    light: np.ndarray
    mask: np.ndarray


def scene_seed(split: str, index: int, *, base: int = 0) -> int:
    """Return the seed of scene ``index`` of a ``split``; seeds of different splits (or bases) never meet.

    Raises:
        OsasisError: for an unknown split or an index outside [0, 10000).
    """
    if split not in SPLITS:
        raise OsasisError(f"A phantom split is one of {', '.join(SPLITS)}", found=repr(split))
    if not 0 <= index < SCENES_PER_SPLIT:
        raise OsasisError(f"A phantom split has scenes 0 to {SCENES_PER_SPLIT - 1}", found=index)
    return (base * len(SPLITS) + SPLITS.index(split)) * SCENES_PER_SPLIT + index


def render_scene(seed: int, size: int = DEFAULT_SIZE) -> Scene:
    """Render scene ``seed`` at ``size`` x ``size`` pixels: the same seed gives the same light and mask.

    Scenes in which a polyp is almost hidden, tiny or fills the view are drawn again from the same seed, so that polyps
    cover 2.5 to 25 % of every image.

    Raises:
        OsasisError: for a size below 32 pixels or a negative seed.
    """
    if size < MIN_SIDE_PX or seed < 0:
        raise OsasisError(f"A phantom needs size >= {MIN_SIDE_PX} and seed >= 0", found=f"size {size}, seed {seed}")
    for attempt in range(100):
        rng = np.random.default_rng([seed, attempt])
        bowel = draw_bowel(rng)
        light, share = render_light(bowel, size, rng)
        mask = (share > 0.5).astype(np.uint8)
        if POLYP_AREA[0] <= mask.mean() <= POLYP_AREA[1] and not _has_sliver(mask):
            return Scene(light, mask)
    raise OsasisError("A phantom scene shows a polyp within 100 attempts", found=f"none for seed {seed}, size {size}")


def _has_sliver(mask: np.ndarray) -> bool:
    parts, _ = label(mask)
    return bool(np.bincount(parts.ravel())[1:].min() < SLIVER * mask.size)


def render_pair(
    seed: int, size: int = DEFAULT_SIZE, *, noise: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Photograph one scene by both cameras: RGB uint8 ``(H, W, 3)`` twice, and the mask, uint8 0/1 ``(H, W)``.

    With ``noise=False`` both pictures are free of sensor noise: ``image_b`` is then the exact truth of style transfer.
    """
    scene = render_scene(seed, size)
    image_a, image_b = (
        camera.shoot(scene.light, noise_seed=2 * seed + position if noise else None)
        for position, camera in enumerate((CAMERA_A, CAMERA_B))
    )
    return image_a, image_b, scene.mask
