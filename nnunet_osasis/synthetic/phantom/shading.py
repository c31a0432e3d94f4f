"""Light in a phantom scene: tissue color, vessels, two near lamps, highlights of the wet film."""

from __future__ import annotations

import numpy as np

from nnunet_osasis.synthetic.phantom.noise import NoiseField
from nnunet_osasis.synthetic.phantom.scene import Bowel, camera_rays, first_hits

LAMPS = np.array([[-0.16, 0.02, 0.0], [0.16, 0.02, 0.0]])
"""Places of the two lamps beside the camera, in radii of the bowel."""

MUCOSA = np.array([0.58, 0.25, 0.165])
"""Albedo of the wall in linear red, green and blue."""

STOOL = np.array([0.50, 0.31, 0.09])
"""Albedo of residues."""

BLOOD = np.array([0.42, 0.62, 0.60])
"""Share of each channel that a vessel absorbs."""


def render_light(bowel: Bowel, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the light at the camera ``(size, size, 3)``, linear, and the polyps' share of pixels ``(size, size)``."""
    points = first_hits(bowel, camera_rays(size))
    polyp, residue = bowel.share(bowel.polyps, points), bowel.share(bowel.residues, points)
    # Where two domes meet, the surface belongs to the one that is in front.
    residue = np.where(residue > polyp, residue, 0) if bowel.residues else residue
    polyp = np.where(residue > 0, 0, polyp)
    relief, veins, color, film = (NoiseField(rng) for _ in range(4))
    normals = _bumpy(bowel.normals(points), points, relief, 0.05)
    albedo = _albedo(points, polyp, residue, veins, color, rng)
    diffuse, highlight = _lamps(points, normals, _bumpy(normals, points, film, 0.09), rng)
    # Light that has bounced off the walls fills shadows with red; it dies out with depth.
    fill = 0.05 / (0.6 + np.linalg.norm(points, axis=1)) ** 2
    light = albedo * (diffuse[:, None] + fill[:, None] * np.array([1.0, 0.6, 0.5])) + highlight[:, None]
    light = light.reshape(size, size, 3)
    return light * _auto_exposure(light, rng), polyp.reshape(size, size)


def _bumpy(normals: np.ndarray, points: np.ndarray, field: NoiseField, strength: float) -> np.ndarray:
    """Tilt ``normals`` ``(N, 3)`` by the slope of a fine relief."""
    tilt = np.stack([field.octaves(points + shift, 5.0, 2) for shift in (0.0, 11.0, 23.0)], axis=1)
    bent = normals + strength * tilt
    return bent / np.linalg.norm(bent, axis=1, keepdims=True)


def _albedo(
    points: np.ndarray,
    polyp: np.ndarray,
    residue: np.ndarray,
    veins: NoiseField,
    color: NoiseField,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the diffuse color ``(N, 3)``: patient tint, patches and vessels of the wall, polyps, residues."""
    tint = MUCOSA * np.exp(rng.normal(0, [0.06, 0.09, 0.11]))
    patches = color.octaves(points, 1.5, 3)
    # Vessels are the zero crossings of smooth noise: thin, branching, never ending in mid-tissue.
    vessels = sum(
        weight * np.exp(-((veins(points + shift, frequency) / width) ** 2))
        for shift, frequency, width, weight in ((0.0, 1.1, 0.10, 1.0), (13.0, 2.3, 0.16, 0.55))
    )
    vessels = vessels * np.clip(0.6 + 0.5 * veins(points + 29.0, 0.7), 0, 1.3) * rng.uniform(0.35, 0.8)
    wall = tint * np.exp(0.13 * patches)[:, None] * (1 - np.clip(vessels, 0, 1)[:, None] * BLOOD * 0.75)
    # Shape tells domes from the wall, color tells polyps from residues; how much of either there is varies.
    pits = color.octaves(points + 3.0, 9.0, 2)
    redder = np.array([0.0, -0.30, -0.22]) + rng.normal(0, 0.10) + rng.normal(0, [0.03, 0.07, 0.07])
    dome = tint * np.exp(redder + 0.09 * pits[:, None] + 0.06 * patches[:, None])
    stool = STOOL * np.exp(rng.normal(0, 0.12) + rng.normal(0, [0.05, 0.07, 0.15]) + 0.13 * pits[:, None])
    colored = wall + polyp[:, None] * (dome - wall)
    return colored + residue[:, None] * (stool - colored)


def _lamps(
    points: np.ndarray, normals: np.ndarray, film_normals: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return diffuse irradiance and mirror highlights of the two lamps at the tip, each ``(N,)``."""
    diffuse, highlight = np.zeros(len(points)), np.zeros(len(points))
    to_eye = -points / np.linalg.norm(points, axis=1, keepdims=True)
    gloss, wetness = rng.uniform(60, 200), rng.uniform(0.4, 1.4)
    for lamp in LAMPS:
        to_lamp = lamp - points
        distance = np.linalg.norm(to_lamp, axis=1)
        to_lamp = to_lamp / distance[:, None]
        falloff = 0.5 / (distance**2 + 0.5)
        # Tissue scatters light below its surface, so shading wraps a little beyond the grazing angle.
        cosine = np.clip((np.sum(normals * to_lamp, axis=1) + 0.12) / 1.12, 0, 1)
        diffuse += falloff * cosine
        half = to_lamp + to_eye
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        highlight += wetness * falloff * np.clip(np.sum(film_normals * half, axis=1), 0, 1) ** gloss
    return diffuse, highlight


def _auto_exposure(light: np.ndarray, rng: np.random.Generator) -> float:
    """Return the gain an endoscope's iris would choose: the bright parts of green at about a third of full scale."""
    return float(rng.uniform(0.26, 0.36) / (np.percentile(light[..., 1], 85) + 1e-6))
