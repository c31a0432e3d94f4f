"""Ultrasound phantoms: speckle, attenuation and acoustic shadows that reach the edge, and nowhere a frame.

What is dark here is tissue. Nothing is simulated; the pictures have the properties that tell shadow from frame: it is
uneven, it ends without an edge, and it lies elsewhere in each image.

>>> image, mask = draw_ultrasound(0, size=48)
>>> image.shape, image.dtype.name, sorted(set(mask.ravel().tolist()))
((1, 48, 48), 'uint8', [0, 1])
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from nnunet_osasis.errors import OsasisError

DEFAULT_SIZE = 96
"""Side of a picture in pixels."""

MIN_SIDE_PX = 32
"""Smallest side of a picture in pixels."""


def draw_ultrasound(seed: int, size: int = DEFAULT_SIZE, *, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture ``(1, size, size)`` uint8 and the mask of its dark lesion ``(size, size)``, uint8 0/1.

    Args:
        seed: of the picture; the same seed gives the same picture.
        size: its side in pixels.
        gain: of the receiver, before the picture is clipped at white: another scanner of the same scene.

    Raises:
        OsasisError: a size below 32 pixels or a negative seed.
    """
    if size < MIN_SIDE_PX or seed < 0:
        raise OsasisError(
            f"An ultrasound phantom needs size >= {MIN_SIDE_PX} and seed >= 0", found=f"size {size}, seed {seed}"
        )
    rng = np.random.default_rng([seed, 11])
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    phase = rng.uniform(0, 6, 3)
    echo = 100 + 30 * np.sin(5 * x + 3 * y + phase[0]) + 100 * np.exp(-((y / 0.15) ** 2))  # bright skin on top
    echo *= np.exp(-rng.uniform(0.2, 0.9) * y)
    center, radii = rng.uniform(0.3, 0.7, 2), rng.uniform(0.1, 0.18, 2)
    lesion = ((y - center[0]) / radii[0]) ** 2 + ((x - center[1]) / radii[1]) ** 2 < 1
    echo *= np.where(lesion, 0.3, 1.0)
    echo *= ndimage.gaussian_filter(rng.rayleigh(0.8, (size, size)), 0.8)  # speckle multiplies
    shadow = np.zeros((size, size))
    for _ in range(rng.integers(1, 3)):
        middle, width, top = rng.uniform(0.1, 0.9), rng.uniform(0.06, 0.16), rng.uniform(0.2, 0.5)
        shadow = np.maximum(shadow, (y > top) & (np.abs(x - middle - 0.15 * (y - top)) < width))
    shadow = ndimage.gaussian_filter(shadow, size / 48)
    dark = 20 + 12 * np.sin(7 * y + 5 * x + phase[1]) + rng.normal(0, 2, (size, size))
    image = gain * (echo * (1 - shadow) + dark * shadow)
    return np.clip(image, 0, 255).astype(np.uint8)[None], lesion.astype(np.uint8)
