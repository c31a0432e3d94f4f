"""Which images a gate is calibrated on: a few, evenly spaced, their middle."""

from __future__ import annotations

import numpy as np

IMAGES = 16
"""Source images a calibration looks at."""
SIDE = 512
"""Of larger images the middle is taken."""


def chosen_indices(count: int) -> list[int]:
    """At most ``IMAGES`` evenly spaced ones of ``count``."""
    return np.unique(np.linspace(0, count - 1, IMAGES).round().astype(int)).tolist()


def middle(image: np.ndarray) -> np.ndarray:
    """At most ``SIDE`` pixels of ``(C, H, W)`` to either direction, around its middle."""
    starts = [max(0, (side - SIDE) // 2) for side in image.shape[1:]]
    return image[:, starts[0] : starts[0] + SIDE, starts[1] : starts[1] + SIDE]


class EvenlySpaced:
    """Keeps at most ``2 IMAGES`` of a stream of arrays, evenly spaced, whatever its length."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []
        self._stride, self._seen = 1, 0

    def add(self, image: np.ndarray) -> None:
        """The next ``(C, H, W)`` in [-1, 1]; of larger ones the middle is kept."""
        if self._seen % self._stride == 0:
            if len(self.kept) == 2 * IMAGES:
                self.kept, self._stride = self.kept[::2], 2 * self._stride
            if self._seen % self._stride == 0:
                self.kept.append(np.array(middle(image), np.float32))
        self._seen += 1
