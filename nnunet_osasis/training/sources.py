"""Training images for a stylizer: files or arrays in native units to one tensor at the networks' size."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.calibration import EvenlySpaced
from nnunet_osasis.images.gray import ColorSurvey, to_gray
from nnunet_osasis.images.image import check_array
from nnunet_osasis.images.intensity import Bounds, IntensityRange, infer_range, to_unit
from nnunet_osasis.images.io import list_images
from nnunet_osasis.images.slices import best_slice, read_in_slices, slices_of
from nnunet_osasis.images.units import add_seen, check_units
from nnunet_osasis.maps.detail import DetailStatistics
from nnunet_osasis.maps.resize import resize

logger = logging.getLogger(__name__)

NamedArrays = Callable[[], Iterable[tuple[str, np.ndarray]]]
"""Opens a fresh pass over ``(name, array)``; arrays ``(C, H, W)`` or ``(C, D, H, W)`` in native units."""


def folder_arrays(folder: str | Path) -> NamedArrays:
    """Open the images of a folder by name, volumes with the axis to cut along in front.

    Raises ``OsasisError`` when the folder is missing or empty.
    """
    files = list_images(folder)
    return lambda: ((path.name, read_in_slices(path)) for path in files)


def _has_contrast(image: np.ndarray) -> bool:
    return bool((image != image.flat[0]).any())


def load_sources(
    arrays: NamedArrays,
    size: int,
    *,
    intensity: IntensityRange | None = None,
    schemes: Sequence[str] = (),
    window: Sequence[float] = (),
    max_images: int = 4000,
    details: list[DetailStatistics] | None = None,
    gate_images: EvenlySpaced | None = None,
    frame_images: EvenlySpaced | None = None,
) -> tuple[torch.Tensor, IntensityRange]:
    """Read a training set.

    Args:
        arrays: opens a pass over the images.
        size: side of the square that the images are resized to (stretched, as in OSASIS).
        intensity: the range to use; None infers one.
        schemes: nnU-Net's normalization schemes, for inferring the range.
        window: percentiles of the dataset, for inferring the range.
        max_images: largest number of slices; evenly spaced ones are taken of more.
        details: filled with the statistics of every image (volumes: of their middle slice) at its own size.
        gate_images: filled with images (volumes: their slice of most contrast) at their own size, in [-1, 1].
        frame_images: filled with the same for the search of the frame.

    Returns:
        ``(N, C, size, size)`` in [-1, 1] and the range, with the values seen. Constant images are left out, with a
        warning, as are empty slices of volumes.

    Raises:
        OsasisError: an unreadable or non-finite image, constant ones only, or images of different channel counts.
    """
    if intensity is None:
        intensity = infer_range((array for _, array in arrays()), schemes, window)
    channels, units, seen, survey = None, [], [], ColorSurvey()
    for name, array in tqdm(arrays(), desc="read images", unit="image", dynamic_ncols=True):
        check_array(array, name=name, channels=channels)
        channels = array.shape[0]
        survey.add(name, array)
        if not _has_contrast(array):
            logger.warning("%s is left out: it is constant (%g everywhere)", name, array.flat[0])
            continue
        low, high = float(array.min()), float(array.max())
        seen.append((low, low, high, high))
        bounds = intensity.bounds(array, name=name)
        if details is not None:
            details.extend(detail_of(array, bounds))
        for kept in (gate_images, frame_images):
            if kept is not None:
                kept.add(to_unit(best_slice(array), bounds))
        for image in slices_of(array):
            if _has_contrast(image):
                unit = torch.from_numpy(to_unit(image, bounds))[None]
                units.append(resize(unit, (size, size)).clamp(-1, 1))
    survey.warn()
    if not units:
        raise OsasisError("The images must have contrast", found="constant ones only", remedy="Check the folder.")
    if len(units) > max_images:
        units = [units[i] for i in np.linspace(0, len(units) - 1, max_images).round().astype(int)]
    return torch.cat(units), add_seen(intensity, seen)


def detail_of(array: np.ndarray, bounds: Bounds) -> list[DetailStatistics]:
    """Measure sharpness and noise of ``(C, H, W)``, or of a volume's middle slice; empty if nothing is in view."""
    slices = slices_of(array)
    middle = torch.from_numpy(to_unit(slices[len(slices) // 2], bounds))[None]
    statistics = DetailStatistics.of(middle)
    return [] if statistics is None else [statistics]


def check_reference(array: np.ndarray, channels: int, *, name: str) -> None:
    """Raise ``OsasisError`` for a reference of other channels than the source images', or without contrast."""
    check_array(array, name=name, channels=channels)
    if not _has_contrast(best_slice(array)):
        raise OsasisError(f"{name} must have contrast", found="a constant image", remedy="Choose another reference.")


def load_reference(array: np.ndarray, channels: int, intensity: IntensityRange, *, name: str) -> np.ndarray:
    """Return the reference ``(C, H, W)`` in native units, checked against the source images.

    Raises ``OsasisError`` for other channels, no contrast, or units that cannot be the source's.
    """
    check_reference(array, channels, name=name)
    image = np.ascontiguousarray(best_slice(array))
    check_units(array, intensity, name=name)
    if intensity.kind == "fixed":
        span = intensity.high - intensity.low
        low, high = (float(v) for v in np.percentile(image, [1, 99]))
        if high < intensity.low or low > intensity.high or high - low < 0.01 * span:
            raise OsasisError(
                f"{name} must be in the source images' units ({intensity.low:g} to {intensity.high:g})",
                found=f"values from {image.min():g} to {image.max():g}",
                remedy="Convert it to the same bit depth and units, or give --intensity-range.",
            )
    return image


def load_counterpart(
    path: str | Path, channels: int, intensity: IntensityRange, size: int, *, gray: bool = False
) -> torch.Tensor:
    """Read ``y_A``, the reference as the source shows it, from a file: ``(1, C, size, size)`` in [-1, 1].

    Raises ``OsasisError`` as ``load_reference`` does.
    """
    stored = read_in_slices(path)
    array = load_reference(to_gray(stored) if gray else stored, channels, intensity, name="--style-source-image")
    unit = to_unit(array, intensity.bounds(array))
    return resize(torch.from_numpy(unit)[None], (size, size)).clamp(-1, 1)
