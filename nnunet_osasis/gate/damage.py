"""Deliberate damage: what a stylizer must never do to a picture, done to it on purpose, to try the gate.

Every function takes one image ``(C, H, W)`` in [-1, 1], a lesion's mask ``(H, W)`` and a generator, and returns the
damaged image, float64 in [-1, 1]. Nothing is random but textures and directions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.linalg import splu

Damage = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
GRAY_LEVEL = 1 / 127.5
"""One of 255 gray levels in [-1, 1]."""

MARGIN_PX = 3
"""Width in pixels of the rim around a mask that shows the lesion too: outlines are drawn a little inside."""


def fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image with ``mask`` filled from its rim as by a stretched membrane (Laplace's equation)."""
    ys, xs = np.nonzero(mask)
    if not len(ys) or mask.all():
        return image.astype(np.float64)
    index = np.full(mask.shape, -1)
    index[ys, xs] = np.arange(len(ys))
    rows, columns, degree, known = [], [], np.zeros(len(ys)), np.zeros((len(ys), len(image)))
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        y, x = ys + dy, xs + dx
        there = (y >= 0) & (y < mask.shape[0]) & (x >= 0) & (x < mask.shape[1])
        y, x = y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1)
        degree += there
        inner = there & mask[y, x]
        rows.append(np.flatnonzero(inner))
        columns.append(index[y, x][inner])
        rim = there & ~mask[y, x]
        known[rim] += image[:, y[rim], x[rim]].T
    row, column = np.concatenate(rows), np.concatenate(columns)
    neighbors = sparse.coo_matrix((-np.ones(len(row)), (row, column)), shape=(len(ys), len(ys)))
    filled = image.astype(np.float64)
    filled[:, ys, xs] = splu((neighbors + sparse.diags(degree)).tocsc()).solve(known).T
    return filled


def erased(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The lesion gone, its place smooth."""
    return fill(image, ndimage.binary_dilation(mask, iterations=MARGIN_PX))


def _around(mask: np.ndarray) -> np.ndarray:
    """Eight pixels around a mask; everything where the mask leaves no room."""
    ring = ndimage.binary_dilation(mask, iterations=8) & ~mask
    return ring if ring.any() else np.ones_like(mask)


def erased_textured(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The lesion gone, its place as noisy as its surroundings."""
    grown = ndimage.binary_dilation(mask, iterations=MARGIN_PX)
    ring = _around(grown)
    detail = image - np.stack([ndimage.gaussian_filter(channel, 2) for channel in image])
    filled = fill(image, grown)
    filled[:, grown] += rng.standard_normal((len(image), int(grown.sum()))) * detail[:, ring].std(axis=1)[:, None]
    return filled.clip(-1, 1)


def _sample(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.stack([ndimage.map_coordinates(channel, [y, x], order=1, mode="nearest") for channel in image])


def moved(pixels: float) -> Damage:
    """The lesion moved by so many pixels in a random direction, its surroundings stretched and squeezed."""

    def move(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        angle = rng.uniform(0, 2 * np.pi)
        wide = ndimage.binary_dilation(mask, iterations=round(2 * pixels) + 4).astype(np.float64)
        weight = ndimage.gaussian_filter(wide, pixels)
        y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float64)
        return _sample(image, y - pixels * np.sin(angle) * weight, x - pixels * np.cos(angle) * weight)

    return move


def shrunk(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every lesion shrunk to four fifths of its diameter around its center."""
    labels, count = ndimage.label(mask)
    result = image.astype(np.float64)
    for lesion in range(1, count + 1):
        inside = labels == lesion
        cy, cx = ndimage.center_of_mass(inside)
        reach = max(6.0, np.sqrt(inside.sum() / np.pi))
        weight = np.clip(1 - ndimage.distance_transform_edt(~inside) / reach, 0, 1)
        y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float64)
        result = _sample(result, y + (y - cy) * 0.25 * weight, x + (x - cx) * 0.25 * weight)
    return result


def inverted(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The lesion's contrast to its surroundings turned over: dark becomes bright."""
    weight = ndimage.gaussian_filter(mask.astype(np.float64), 1)
    ring = _around(mask)
    level = image[:, ring].mean(axis=1)[:, None, None]
    return image * (1 - weight) + (2 * level - image).clip(-1, 1) * weight


def painted(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A patch of gray texture, an eighth of full contrast, where there was none."""
    height, width = mask.shape
    texture = ndimage.gaussian_filter(rng.standard_normal(mask.shape), 1.5)
    center = rng.uniform(0.25, 0.75, 2) * mask.shape
    y, x = np.mgrid[:height, :width]
    radius = 0.12 * min(height, width)
    patch = np.exp(-((((y - center[0]) ** 2 + (x - center[1]) ** 2) / radius**2) ** 2))
    return (image + 0.25 * texture / texture.std() * patch).clip(-1, 1)


def shifted(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The whole picture two pixels off its mask."""
    return np.roll(image, 2, axis=2).astype(np.float64)


def blurred(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The whole picture blurred by two pixels."""
    return np.stack([ndimage.gaussian_filter(channel.astype(np.float64), 2) for channel in image])


def negative(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The whole picture turned over: dark becomes bright."""
    return -image.astype(np.float64)


def checkerboard(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A checkerboard of single pixels over the picture, 8 of 255 gray levels up and down."""
    return (image + 8 * GRAY_LEVEL * (2 * (np.indices(mask.shape).sum(axis=0) % 2) - 1)).clip(-1, 1)


def striped(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stripes of single pixels over the picture, 8 gray levels up and down."""
    return (image + 8 * GRAY_LEVEL * (2 * (np.arange(mask.shape[1]) % 2) - 1)).clip(-1, 1)


def grid(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A faint grid over the picture: lines of one pixel, 16 pixels apart, 6 gray levels brighter."""
    y, x = np.indices(mask.shape)
    return (image + 6 * GRAY_LEVEL * ((y % 16 == 8) | (x % 16 == 8))).clip(-1, 1)


def rim(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An outline of two pixels around every lesion, 24 gray levels brighter."""
    return (image + 24 * GRAY_LEVEL * (ndimage.binary_dilation(mask, iterations=2) & ~mask)).clip(-1, 1)


def contour(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A step of 10 gray levels along a jagged contour through the picture's dark parts."""
    shade = ndimage.gaussian_filter(image.mean(axis=0, dtype=np.float64), 6)
    jags = ndimage.gaussian_filter(rng.standard_normal(mask.shape), 4)
    jagged = shade + 0.1 * shade.std() * jags / jags.std()
    return (image + 10 * GRAY_LEVEL * (jagged < np.quantile(shade, 0.3))).clip(-1, 1)


KINDS: dict[str, Damage] = {
    "erased": erased,
    "erased_textured": erased_textured,
    "moved_3px": moved(3),
    "moved_5px": moved(5),
    "shrunk": shrunk,
    "inverted": inverted,
    "painted": painted,
    "shifted": shifted,
    "blurred": blurred,
    "negative": negative,
    "checkerboard": checkerboard,
    "striped": striped,
    "grid": grid,
    "rim": rim,
    "contour": contour,
}
