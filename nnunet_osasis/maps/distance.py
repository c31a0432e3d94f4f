"""Distances of styled pictures to a known truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import structural_similarity

from nnunet_osasis.images.slices import evenly_spaced


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB of two uint8 pictures; capped at 99 for equal ones."""
    error = float(np.mean((image.astype(float) - truth.astype(float)) ** 2))
    return 99.0 if error < 1e-6 else min(99.0, float(10 * np.log10(255**2 / error)))


def ciede2000(image: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean CIEDE2000 of the pixels of two pictures ``(C, H, W)`` uint8; nobody sees less than 1."""
    return float(deltaE_ciede2000(lab_values(image), lab_values(truth)).mean())


def ssim(image: np.ndarray, truth: np.ndarray) -> float:
    """Return the structural similarity of two pictures ``(C, H, W)`` uint8, mean over channels (7 x 7 windows)."""
    return float(structural_similarity(image, truth, channel_axis=0, data_range=255))


def distances(images: Sequence[np.ndarray], truths: Sequence[np.ndarray], *, most: int = 48) -> dict[str, list[float]]:
    """Return ``{"psnr", "ssim", "ciede2000"}``, one value per picture, of ``most`` evenly spaced ones at most."""
    chosen = evenly_spaced(len(images), most)
    measures = {"psnr": psnr, "ssim": ssim, "ciede2000": ciede2000}
    return {name: [round(measure(images[i], truths[i]), 4) for i in chosen] for name, measure in measures.items()}


def lab_values(image: np.ndarray) -> np.ndarray:
    """Return CIELAB ``(H, W, 3)`` of a picture ``(C, H, W)`` uint8; gray pictures have no color."""
    rgb = np.repeat(image, 3, axis=0) if image.shape[0] == 1 else image
    return np.asarray(rgb2lab(np.moveaxis(rgb[:3], 0, -1)))
