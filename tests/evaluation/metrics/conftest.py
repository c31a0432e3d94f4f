"""Drawn masks and maps, and folders of them, for the tests of the metrics and of ``osasis-evaluate``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage


def blob(seed: int, shape: tuple[int, ...] = (40, 52), *, share: float = 0.15, smooth: float = 4) -> np.ndarray:
    """A random smooth region, bool."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), smooth)
    return field > np.quantile(field, 1 - share)


def noisy(truth: np.ndarray, seed: int, *, noise: float) -> np.ndarray:
    """A map in [0, 1] that resembles ``truth``."""
    values = ndimage.gaussian_filter(truth.astype(float), 2)
    return np.clip(0.05 + 0.9 * values + noise * np.random.default_rng(seed).standard_normal(truth.shape), 0, 1)


def save_png(path: Path, array: np.ndarray) -> None:
    """Write an array as 8-bit PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


def png_study(root: Path, *, cases: int = 6) -> Path:
    """``truth`` (0/255), ``good`` (grey maps), ``poor`` (0/255 masks) and ``images`` (colour): the folder itself."""
    for i in range(cases):
        truth = blob(i) if i else np.zeros((40, 52), bool)  # the first case is empty
        save_png(root / "truth" / f"case {i}.png", truth * 255)
        save_png(root / "good" / f"case {i}.png", np.rint(noisy(truth, i, noise=0.05) * 255))
        save_png(root / "poor" / f"case {i}.png", (noisy(np.roll(truth, 4, 1), i, noise=0.3) > 0.5) * 255)
        picture = np.stack([110 + 60 * truth, 90 + 20 * truth, np.full(truth.shape, 80)], axis=-1)
        save_png(root / "images" / f"case {i}.png", picture + np.random.default_rng(i).integers(0, 20, picture.shape))
    return root


def label_volumes(root: Path, *, cases: int = 3, spacing: tuple[float, float, float] = (0.5, 0.5, 2.0)) -> Path:
    """``truth`` and ``predicted`` NIfTI label maps of classes 1 and 2, with ``spacing`` (x, y, z)."""
    import SimpleITK as sitk

    for i in range(cases):
        truth = blob(i, (6, 24, 28), share=0.3, smooth=2).astype(np.uint8)
        truth[:, :, 14:] *= 2
        for name, labels in (("truth", truth), ("predicted", np.roll(truth, 1, 2))):
            image = sitk.GetImageFromArray(labels)
            image.SetSpacing(spacing)
            (root / name).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, str(root / name / f"case_{i}.nii.gz"))
    return root


@pytest.fixture(scope="session", name="blob")
def _blob():
    """``blob(seed, shape, share=, smooth=)``: a random smooth region, bool."""
    return blob


@pytest.fixture(scope="session", name="noisy")
def _noisy():
    """``noisy(truth, seed, noise=)``: a map in [0, 1]."""
    return noisy


@pytest.fixture(scope="session", name="save_png")
def _save_png():
    """``save_png(path, array)``."""
    return save_png


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Folders ``truth``, ``good``, ``poor`` and ``images`` of six PNG cases, the first of them empty."""
    return png_study(tmp_path / "study")


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Folders ``truth`` and ``predicted`` of three NIfTI label maps."""
    return label_volumes(tmp_path / "volumes")
