"""Seeded, band-limited noise in space, for the phantom's uneven walls, vessels and wet film."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

LATTICE = 32
"""Number of lattice points along each axis, the period of the noise."""


class NoiseField:
    """Smooth noise over 3D space, zero mean and about unit deviation, periodic every 32 units.

    One field is a lattice of normal numbers read with quadratic B-splines: differentiable, so it may bend
    surface normals, and cheap, so a scene can afford a dozen octaves.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._lattice = rng.standard_normal((LATTICE, LATTICE, LATTICE)).astype(np.float32)

    def __call__(self, points: np.ndarray, frequency: float) -> np.ndarray:
        """Return noise ``(N,)`` at ``points`` ``(N, 3)``; ``frequency`` is in cells per unit of length."""
        values = map_coordinates(self._lattice, (points * frequency).T, order=2, mode="grid-wrap", prefilter=False)
        # A quadratic B-spline without prefilter averages neighbors; 1.6 restores unit deviation (measured).
        return values * 1.6

    def octaves(self, points: np.ndarray, frequency: float, count: int) -> np.ndarray:
        """Return the sum of ``count`` octaves, each twice as fine and half as strong, ``(N,)``."""
        total = np.zeros(len(points), dtype=np.float64)
        for octave in range(count):
            # The offset keeps octaves from sharing lattice points, which would line up their extrema.
            total += self(points + 7.31 * octave, frequency * 2**octave) * 0.5**octave
        return total
