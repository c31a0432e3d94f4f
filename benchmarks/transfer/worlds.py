"""Known-truth shifts: images of one site, and cameras or scanners through which the same scenes are seen as another's.

Every camera moves no pixel and leaves frames black. Four of each kind: two drawn from the family that the calibrator is
trained on (seeds it never sees), two of another functional form, which no part of the product fits or imitates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from nnunet_osasis.images.io import read_image
from nnunet_osasis.maps.field_of_view import own_view
from nnunet_osasis.maps.parametric import places
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.synthetic.acquisition import CameraFamily, ScannerFamily
from nnunet_osasis.synthetic.known_camera import random_camera
from nnunet_osasis.synthetic.phantom.anatomy import draw_anatomy
from nnunet_osasis.synthetic.phantom.scanner import SCANNER_A, Scanner

SHIFT = (7.0, 16.0)
"""Mean difference (CIEDE2000) that a camera must make on the source to be taken: of a family's draws the first two."""
Shoot = Callable[[np.ndarray, int | None], np.ndarray]
"""``(C, H, W)`` uint8 and a noise seed (None: free of noise) to the other camera's picture, uint8."""


@dataclass(frozen=True)
class World:
    """Images ``(C, H, W)`` uint8 by role; ``twins[camera][name]`` are pictures of the same scenes by another camera.

    ``twin(camera, role, index, noise)`` gives one of them.
    """

    sources: list[np.ndarray]
    references: list[np.ndarray]
    reference_names: list[str]
    tests: list[np.ndarray]
    twin: Callable[[str, str, int, int | None], np.ndarray]
    cameras: dict[str, str]


def unit(image: np.ndarray) -> torch.Tensor:
    """uint8 to ``(1, C, H, W)`` in [-1, 1]."""
    return torch.from_numpy(image.astype(np.float32) / 127.5 - 1)[None]


def to_8_bit(image: torch.Tensor) -> np.ndarray:
    """The inverse of ``unit``."""
    return ((image[0].clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


def shrink(image: np.ndarray, size: int | None) -> np.ndarray:
    """Resized to a square as the stylizer's sources are; None keeps the native size."""
    return image if size is None else to_8_bit(resize(unit(image), (size, size)))


def framed(shown: np.ndarray, image: np.ndarray) -> np.ndarray:
    """``shown`` with a black frame where ``image`` has one: the processor draws it, not the lens."""
    return np.where(own_view(unit(image))[0].numpy(), shown, 0).astype(np.uint8)


def family_camera(seed: int, family: CameraFamily | ScannerFamily) -> Shoot:
    """One draw of a training family, at a strength of 0.8."""

    def shoot(image: np.ndarray, noise: int | None) -> np.ndarray:
        x = unit(image)
        parameters = family.sample(1, x.shape[1], torch.Generator().manual_seed(900_000 + seed), 0.8)
        where = places(*x.shape[-2:]).flatten(1)[None]
        shown = family.show(x.flatten(2), where, parameters).view_as(x)
        if noise is None:
            parameters = parameters | {"noise": torch.zeros(1)}
        shown = family.degrade(shown, parameters, torch.Generator().manual_seed(noise or 0))
        return framed(to_8_bit(shown), image)

    return shoot


def physical_camera(seed: int) -> Shoot:
    """``evaluation.cameras.random_camera``: linear light, filter cross-talk, shoulder, gamma, S-curve, unsharp masking,
    and JPEG where there is noise; without its frame."""
    camera = replace(random_camera(seed), frame=1.0)

    def shoot(image: np.ndarray, noise: int | None) -> np.ndarray:
        return framed(camera.shoot(image, noise_seed=noise), image)

    return shoot


def choose_cameras(images: list[np.ndarray], difference: Callable) -> dict[str, Shoot]:
    """The first two of either family whose shift lies within ``SHIFT`` (no method is looked at)."""
    found: dict[str, Shoot] = {}
    for kind, make in (("family", lambda s: family_camera(s, CameraFamily())), ("physical", physical_camera)):
        seed, taken = 0, 0
        while taken < 2:
            shoot = make(seed)
            views = [own_view(unit(image))[0, 0].numpy() for image in images]
            shift = np.mean([difference(shoot(x, None), x, v) for x, v in zip(images, views, strict=True)])
            if SHIFT[0] <= shift <= SHIFT[1]:
                found[f"{kind} {seed}"] = shoot
                taken += 1
            seed += 1
    return found


def picture_world(
    sources: list[Path], references: list[Path], tests: list[Path], size: int | None, difference: Callable
) -> World:
    """Real pictures; cameras act at the size the pictures are compared at."""

    def load(files: list[Path], side: int | None) -> list[np.ndarray]:
        return [shrink(read_image(f).array.astype(np.uint8), side) for f in files]

    shown = load(tests, size)
    shots = load(references, size)
    cameras = choose_cameras([shrink(image, 64) for image in shown[::3]], difference)

    def twin(camera: str, role: str, index: int, noise: int | None) -> np.ndarray:
        return cameras[camera]((shown if role == "test" else shots)[index], noise)

    kinds = {name: name.split()[0] for name in cameras}
    return World(load(sources, 64), shots, [f.stem for f in references], shown, twin, kinds)


def clinicdb(data: Path, size: int | None, difference: Callable) -> World:
    """ClinicDB: sources 1-408, references from 409-503, tests 504-612."""
    folder = data / "polyp/clinicdb/images"

    def numbered(numbers: range | list[int]) -> list[Path]:
        return [folder / f"{n}.png" for n in numbers]

    tests = numbered(range(504, 613, 5 if size else 18))
    return picture_world(numbered(range(1, 409)), numbered([412, 430, 450, 470, 490]), tests, size, difference)


def drive(data: Path, size: int | None, difference: Callable) -> World:
    """DRIVE: sources the training half, references and tests from the test half."""
    folder = data / "retina/drive/images"
    held = sorted(folder.glob("*_test.png"))
    references = held[::4]
    tests = [f for f in held if f not in references][:: 1 if size else 3]
    return picture_world(sorted(folder.glob("*_training.png")), references, tests, size, difference)


SCANNERS = {
    "physical 1": Scanner(gain=2300.0, gamma=1.7, mix=0.2, bias=0.25, noise=0.02),
    "physical 2": Scanner(gain=500.0, gamma=0.65, mix=0.1, bias=-0.3, noise=0.03),
}


def mr(_: Path, size: int | None, difference: Callable) -> World:
    """MR-like phantom bodies on scanners; ``physical`` ones mix two weightings and shade in three dimensions, which no
    map of values can follow exactly. Units are arbitrary: every volume is scaled by its own percentiles."""
    side = size or 128
    shape = (12, side, side)
    bodies = {role: range(start, start + n) for role, start, n in (("s", 0, 14), ("r", 100, 5), ("t", 200, 8))}
    drawn = {seed: draw_anatomy(seed, shape) for seeds in bodies.values() for seed in seeds}

    def scaled(volume: np.ndarray) -> np.ndarray:
        low, high = np.percentile(volume, [0.5, 99.5])
        return np.rint(np.clip((volume - low) / (high - low), 0, 1) * 255).astype(np.uint8)

    def source(seed: int) -> np.ndarray:
        return scaled(SCANNER_A.acquire(drawn[seed], 1, noise_seed=seed)[0])

    family = {f"family {s}": family_camera(s, ScannerFamily()) for s in range(2)}

    def twin(camera: str, role: str, index: int, noise: int | None) -> np.ndarray:
        seed = bodies["t" if role == "test" else "r"][index]
        if camera in family:
            return family[camera](source(seed)[6][None], noise)
        seen = SCANNERS[camera].acquire(drawn[seed], 1, noise_seed=None if noise is None else 1000 + noise)
        return framed(scaled(seen[0])[6][None], source(seed)[6][None])

    middles = {role: [source(seed)[6][None] for seed in seeds] for role, seeds in bodies.items()}
    slices = [shrink(source(seed)[k][None], 64) for seed in bodies["s"] for k in range(2, 11)]
    names = [f"body {seed}" for seed in bodies["r"]]
    kinds = {name: name.split()[0] for name in (*family, *SCANNERS)}
    return World(slices, middles["r"], names, middles["t"], twin, kinds)


WORLDS = {"clinicdb": clinicdb, "drive": drive, "mr": mr}
