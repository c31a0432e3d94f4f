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
}
