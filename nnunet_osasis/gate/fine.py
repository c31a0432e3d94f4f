"""Fine structure that a stylized image has and its source has not: patterns of a few pixels, which a blur would hide.

Noise and compression are no structure: their power is spread over all frequencies and places, while a checkerboard,
stripes or a grid have it in few frequencies, or in single lines that run across the whole picture.
"""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage

TILE_PX = 32
"""Side in pixels of the tiles whose spectra are averaged."""

HIGHEST_PERIOD_PX = 5
"""Period in pixels above which a pattern outlives the blur that the other scores look through."""

LEVEL = 0.02
"""Share of a picture's standard deviation that counts as one level: about one of 255 gray levels."""

QUIET = 2.0
"""Noise in levels that is always granted: compressed pictures have frequencies without any."""

SPIKE = 12.0
"""Largest deviation in levels with which one pixel counts for its line."""

LINE = 1.3
"""Strength in levels of a line, all across the picture, that halves the score."""


def fine_structure(source: np.ndarray, stylized: np.ndarray) -> float:
    """Score the slice with the strongest new pattern: 1 is none.

    A pattern is scored by the amplitude of what source and noise explain, as a share of its own: in spectra of tiles,
    averaged over the picture, at periods of 2 to 5 pixels, the power at a frequency is compared with the median power
    (which is the noise's) and with the source's at that frequency. A line is scored by its strength: the mean second
    difference of its pixels, beyond twice the source's within two pixels and three standard errors.

    Args:
        source: ``(B, C, H, W)`` in [-1, 1], not blurred.
        stylized: the restyled image, likewise.
    """
    level = LEVEL * max(float(stylized.std()), 1e-3)
    pairs = list(zip(source, stylized, strict=True))
    power = max(_power(before, after, level) for before, after in pairs)
    line = max(_line(before, after, level) for before, after in pairs)
    return float(min(1.0, power**-0.5, 1 / (1 + max(0.0, line) / LINE)))


def _spectra(image: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """Mean power of fine patterns over tiles that cover ``(C, H, W)``: ``(C, F)``, and that of noise of variance 1."""
    starts = [np.unique(np.linspace(0, n - side, -(-n // side)).round().astype(int)) for n in image.shape[1:]]
    every = np.lib.stride_tricks.sliding_window_view(image, (len(image), side, side))[0]
    tiles = every[starts[0][:, None], starts[1]].swapaxes(0, 1).swapaxes(0, 2)
    window = np.outer(*[np.hanning(side + 2)[1:-1]] * 2).astype(np.float32)
    tiles = (tiles - tiles.mean(axis=(-2, -1), keepdims=True)) * window
    fine = np.maximum(np.abs(np.fft.fftfreq(side))[:, None], np.fft.rfftfreq(side)) >= 1 / HIGHEST_PERIOD_PX
    transformed = fft.rfft2(tiles)
    power = (transformed.real**2 + transformed.imag**2).mean(axis=(1, 2))
    return power[:, fine], float((window**2).sum())


def _power(source: np.ndarray, stylized: np.ndarray, level: float) -> float:
    """The strongest frequency's power, as a multiple of what noise and source have there."""
    side = min(TILE_PX, *source.shape[1:])
    if side < 8:  # too small for a spectrum
        return 1.0
    (before, unit), (after, _) = _spectra(source, side), _spectra(stylized, side)
    granted = (QUIET * level) ** 2 * unit
    shares = [power / (np.median(power, axis=1, keepdims=True) + granted) for power in (before, after)]
    return max(1.0, float((shares[1] / (1 + shares[0])).max()))


def _line(source: np.ndarray, stylized: np.ndarray, level: float) -> float:
    """Strength in levels of the strongest new line along rows or columns."""
    found = [0.0]
    for axis in (1, 2):
        if source.shape[axis] < 3:
            continue
        (before, _), (after, chance) = (_profile(image, axis, level) for image in (source, stylized))
        found.append(float((after - 2 * ndimage.maximum_filter1d(before, 5)).max()) - 3 * chance)
    return max(found)


def _profile(image: np.ndarray, axis: int, level: float) -> tuple[np.ndarray, float]:
    """Mean second difference of every line across ``axis``, of the channel where it is largest, and its standard error.

    Both in levels.
    """
    first, middle, last = (image[:, k:n] if axis == 1 else image[..., k:n] for k, n in ((0, -2), (1, -1), (2, None)))
    bend = first + last
    bend *= -0.5
    bend += middle
    np.clip(bend, -SPIKE * level, SPIKE * level, out=bend)
    chance = float(bend.std()) / np.sqrt(bend.shape[3 - axis])
    return np.abs(bend.mean(axis=3 - axis)).max(axis=0) / level, chance / level
