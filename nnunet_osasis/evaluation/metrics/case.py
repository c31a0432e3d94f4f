"""One prediction beside its truth, checked once; what several metrics need of it is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.metrics.protocol import Protocol

LEVELS = 256
"""Number of thresholds of a map in 8 bits."""


@dataclass(frozen=True, eq=False)
class Case:
    """A map and its truth.

    Attributes:
        prediction: ``(H, W)`` or ``(D, H, W)`` float64 in [0, 1], normalized where the protocol says so.
        truth: bool, same shape.
        spacing: size of a pixel or voxel along each axis.
        protocol: the conventions that hold.
        ignored: bool, same shape: pixels of unknown truth, which count neither as right nor as wrong. Prediction and
            truth are 0 there, for measures that need the whole image.
    """

    prediction: np.ndarray
    truth: np.ndarray
    spacing: tuple[float, ...]
    protocol: Protocol
    ignored: np.ndarray | None = None

    @cached_property
    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Prediction and truth of the pixels that count, each in one row."""
        if self.ignored is None:
            return self.prediction.ravel(), self.truth.ravel()
        return self.prediction[~self.ignored], self.truth[~self.ignored]

    @property
    def size(self) -> int:
        """Number of pixels that count."""
        return int(self.pixels[1].size)

    @cached_property
    def positives(self) -> int:
        """Foreground pixels of the truth."""
        return int(np.count_nonzero(self.truth))

    @property
    def negatives(self) -> int:
        """Background pixels of the truth."""
        return self.size - self.positives

    @cached_property
    def mask(self) -> np.ndarray:
        """The prediction at the fixed threshold, bool."""
        return self.prediction >= self.protocol.threshold

    @cached_property
    def hits(self) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives ``(256,)`` at the thresholds 255/255, 254/255, ..., 0/255.

        One histogram per side of the truth, summed from the top, gives all thresholds at once. Levels are rounded
        down as PySODMetrics does, so that a map stored in 8 bits keeps its own levels.
        """
        prediction, truth = self.pixels
        code = (prediction * (LEVELS - 1)).astype(np.uint8).astype(np.int16)
        histogram = np.bincount(code + LEVELS * truth, minlength=2 * LEVELS).reshape(2, LEVELS)
        false, true = np.cumsum(histogram[:, ::-1], axis=1)
        return true, false

    def hits_at(self, threshold: float) -> tuple[int, int]:
        """True and false positives of the mask at a threshold."""
        prediction, truth = self.pixels
        mask = prediction >= threshold
        true = int(np.count_nonzero(mask & truth))
        return true, int(np.count_nonzero(mask)) - true


def make_case(
    prediction: np.ndarray,
    truth: np.ndarray,
    protocol: Protocol,
    *,
    spacing: Sequence[float] | None = None,
    ignored: np.ndarray | None = None,
) -> Case:
    """Check a prediction and its truth and put them side by side.

    Args:
        prediction: map in [0, 1], or mask, ``(H, W)`` or ``(D, H, W)``.
        truth: 0 and 1, same shape.
        protocol: the conventions that hold.
        spacing: size of a pixel or voxel along each axis; None: 1.
        ignored: bool, same shape: pixels to leave out.

    Raises:
        OsasisError: for other ranks or sizes, NaN, a map outside [0, 1], a truth other than 0 and 1, and a spacing
            that is not one positive number per axis.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    if prediction.shape != truth.shape:
        raise OsasisError(
            "Prediction and truth must have one size",
            found=f"{prediction.shape} and {truth.shape}",
            remedy="Resample the prediction to the truth's grid.",
        )
    if truth.ndim not in (2, 3) or truth.size == 0:
        raise OsasisError("Prediction and truth must have the axes (H, W) or (D, H, W)", found=f"shape {truth.shape}")
    spacing = tuple(float(s) for s in spacing) if spacing is not None else (1.0,) * truth.ndim
    if len(spacing) != truth.ndim or not all(np.isfinite(s) and s > 0 for s in spacing):
        raise OsasisError("The spacing must be one positive number per axis", found=f"{spacing} for {truth.shape}")
    values, mask = _unit_map(prediction, normalize=protocol.normalize), _as_bool(truth)
    if ignored is not None:
        values, mask = np.where(ignored, 0, values), mask & ~ignored
    return Case(values, mask, spacing, protocol, ignored)


def _as_bool(truth: np.ndarray) -> np.ndarray:
    mask = truth.astype(bool)
    if truth.dtype != bool and not np.array_equal(mask, truth):
        raise OsasisError(
            "The truth must hold 0 and 1 only",
            found=f"values from {truth.min()} to {truth.max()}",
            remedy="Compare it with a threshold or a class first, for example truth == 2.",
        )
    return mask


def _unit_map(prediction: np.ndarray, *, normalize: bool) -> np.ndarray:
    if prediction.dtype.kind not in "buif":
        raise OsasisError("The prediction must hold numbers", found=f"dtype {prediction.dtype}")
    values = np.ascontiguousarray(prediction, dtype=np.float64)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # also true for NaN
        raise OsasisError(
            "The prediction must be a map in [0, 1] or a mask",
            found=f"values from {low} to {high}",
            remedy="Divide 8-bit maps by 255, apply the sigmoid to logits, and repair NaN.",
        )
    return (values - low) / (high - low) if normalize and high > low else values
