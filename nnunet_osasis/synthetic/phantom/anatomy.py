"""A drawn body volume: tissues, a lesion or two, and what two kinds of weighting would show of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

# Signal of each tissue in [0, 1] under four weightings like T1, T2, proton density and FLAIR; air has none.
FAT = (0.85, 0.60, 0.80, 0.70)
MUSCLE = (0.40, 0.25, 0.60, 0.35)
ORGAN = (0.60, 0.40, 0.70, 0.50)
FLUID = (0.15, 0.95, 0.90, 0.10)
VESSEL = (0.22, 0.50, 0.75, 0.30)
LESION = (0.40, 0.70, 0.75, 0.75)

WEIGHTINGS = 4
"""Number of weightings, and so of channels at most."""


@dataclass(frozen=True)
class Anatomy:
    """One body.

    Attributes:
        signal: ``(4, D, H, W)`` float64 in [0, 1], one channel per weighting.
        mask: its lesions, ``(D, H, W)`` uint8, 0 or 1.
        spacing: of ``(D, H, W)`` in mm.
    """

    signal: np.ndarray
    mask: np.ndarray
    spacing: tuple[float, float, float]


def draw_anatomy(
    seed: int, shape: tuple[int, int, int] = (24, 96, 96), spacing: tuple[float, float, float] = (4.0, 1.0, 1.0)
) -> Anatomy:
    """Draw body ``seed``: the same seed gives the same body, at any sampling.

    The body is an ellipsoid of fat and muscle that tapers towards the first and the last slice, with two organs, a
    fluid space, vessels and one or two lesions inside an organ; everything changes smoothly from slice to slice.
    """
    rng = np.random.default_rng(seed)
    z, y, x = (np.linspace(-1, 1, n) for n in shape)
    points = np.stack(np.meshgrid(z, y, x, indexing="ij"))
    soft = 1.0 / max(shape[1:])  # half the width of an edge
    signal = np.zeros((WEIGHTINGS, *shape))

    def paint(tissue: tuple[float, ...], inside: np.ndarray) -> None:
        signal[...] += inside * (np.array(tissue)[:, None, None, None] - signal)

    def ellipsoid(center: np.ndarray, radii: np.ndarray, turn: float = 0.0) -> np.ndarray:
        dz, dy, dx = (points[i] - center[i] for i in range(3))
        cos, sin = np.cos(turn), np.sin(turn)
        local = np.stack([dz / radii[0], (cos * dy - sin * dx) / radii[1], (sin * dy + cos * dx) / radii[2]])
        distance = (np.sqrt((local**2).sum(0)) - 1) * radii[1:].min()
        return 1 / (1 + np.exp(np.clip(distance / soft, -50, 50)))

    body = np.array([1.15, *rng.uniform(0.66, 0.82, 2)])  # tapers to half its width: heads and limbs end
    paint(FAT, ellipsoid(np.zeros(3), body))
    within = ellipsoid(np.zeros(3), body * np.array([0.97, 0.86, 0.88]))
    paint(MUSCLE, within)
    organs = []
    for side in (-1, 1):
        center = np.array([rng.uniform(-0.3, 0.3), rng.uniform(-0.15, 0.1), side * rng.uniform(0.25, 0.36)])
        radii = np.array([rng.uniform(0.7, 1.1), rng.uniform(0.28, 0.4), rng.uniform(0.2, 0.28)])
        organs.append((center, radii, rng.uniform(-0.5, 0.5)))
        paint(ORGAN, within * ellipsoid(*organs[-1]))
    paint(FLUID, within * ellipsoid(np.array([0.0, 0.3, 0.0]), np.array([0.9, 0.07, 0.07])))
    sway = rng.uniform(-0.15, 0.15, 2)
    for side in (-1, 1):
        offset = np.stack([points[1] + 0.25 - sway[0] * points[0], points[2] - side * 0.06 - sway[1] * points[0]])
        paint(VESSEL, within / (1 + np.exp((np.sqrt((offset**2).sum(0)) - 0.045) / soft)))
    lesion = np.zeros(shape)
    for center, radii, _ in organs[: rng.integers(1, 3)]:
        place = center + rng.uniform(-0.3, 0.3, 3) * radii
        lesion = np.maximum(lesion, ellipsoid(place, np.array([0.35, 0.11, 0.11]) * rng.uniform(0.8, 1.2)))
    paint(LESION, lesion)
    signal *= 1 + 0.06 * _texture(rng, shape)
    return Anatomy(np.clip(signal, 0, 1), (lesion > 0.5).astype(np.uint8), spacing)


def _texture(rng: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Draw smooth noise of unit deviation, correlated over a few voxels."""
    noise = gaussian_filter(rng.standard_normal(shape), (1.0, 1.5, 1.5), mode="nearest")
    return noise / noise.std()
