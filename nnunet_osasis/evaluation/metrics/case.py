"""One prediction beside its truth, checked once; what several metrics need of it is computed once.

E-measure: enhanced alignment of a map with its truth (Fan et al., IJCAI 2018, equations 4 to 6).

With both images reduced by their means to ``a`` and ``b``, each pixel scores ``(1 + 2ab / (a² + b²))² / 4``. For a
mask, ``a`` and ``b`` take two values each, so that four counts decide the whole sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.metrics.protocol import Protocol

LEVELS = 256


@dataclass(frozen=True, eq=False)
class Case:
    """A map and its truth.

    Attributes:
        prediction: ``(H, W)`` or ``(D, H, W)`` float64 in [0, 1], normalised where the protocol says so.
        truth: bool, same shape.
        spacing: size of a pixel or voxel along each axis.
        protocol: the conventions that hold.
    """

    prediction: np.ndarray
    truth: np.ndarray
    spacing: tuple[float, ...]
    protocol: Protocol

    @cached_property
    def positives(self) -> int:
        """Foreground pixels of the truth."""
        return int(np.count_nonzero(self.truth))

    @property
    def negatives(self) -> int:
        """Background pixels of the truth."""
        return self.truth.size - self.positives

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
        code = (self.prediction * (LEVELS - 1)).astype(np.uint8).astype(np.int16)
        histogram = np.bincount((code + LEVELS * self.truth).ravel(), minlength=2 * LEVELS).reshape(2, LEVELS)
        false, true = np.cumsum(histogram[:, ::-1], axis=1)
        return true, false

    def hits_of(self, mask: np.ndarray) -> tuple[int, int]:
        """True and false positives of a bool mask."""
        true = int(np.count_nonzero(mask & self.truth))
        return true, int(np.count_nonzero(mask)) - true


def make_case(
    prediction: np.ndarray, truth: np.ndarray, protocol: Protocol, *, spacing: Sequence[float] | None = None
) -> Case:
    """Check a prediction and its truth and put them side by side.

    Raises ``OsasisError`` for other ranks or sizes, NaN, a map outside [0, 1], a truth other than 0 and 1, and
    a spacing that is not one positive number per axis.
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
    return Case(_unit_map(prediction, normalize=protocol.normalize), _as_bool(truth), spacing, protocol)


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


EPS = np.spacing(1)

Values = np.ndarray | float


def _enhanced(a: Values, b: Values) -> Any:
    return (2 * a * b / (a * a + b * b + EPS) + 1) ** 2 / 4


def _mean(total: Values, size: int) -> Any:
    """The authors divide by one pixel less than there are, so that E reaches N / (N - 1), a little above 1."""
    return total / (max(size - 1, 1) + EPS)


def alignment_of(case: Case, true: Values, false: Values) -> np.ndarray:
    """E-measure of masks with ``true`` and ``false`` positives (arrays of one shape).

    Where the truth has no foreground (background), it is the share of predicted background (foreground).
    """
    true, false = np.asarray(true, dtype=float), np.asarray(false, dtype=float)
    size, predicted = case.truth.size, true + false
    if case.positives == 0:
        return _mean(size - predicted, size)
    if case.negatives == 0:
        return _mean(predicted, size)
    share, wanted = predicted / size, case.positives / size
    missed = case.positives - true
    parts = (
        true * _enhanced(1 - share, 1 - wanted),
        false * _enhanced(1 - share, -wanted),
        missed * _enhanced(-share, 1 - wanted),
        (size - predicted - missed) * _enhanced(-share, -wanted),
    )
    return _mean(sum(parts[1:], parts[0]), size)


def alignment_curve(case: Case) -> np.ndarray:
    """E-measure ``(256,)`` at the thresholds 255/255, 254/255, ..., 0/255."""
    return alignment_of(case, *case.hits)


def alignment(case: Case) -> dict[str, float]:
    """Largest and mean value of the curve of this one case."""
    curve = alignment_curve(case)
    return {"e_max": float(curve.max()), "e_mean": float(curve.mean())}


def adaptive_alignment(case: Case) -> dict[str, float]:
    """E-measure at the map's own threshold: twice its mean, at most 1."""
    mask = case.prediction >= min(2 * case.prediction.mean(), 1)
    true, false = case.hits_of(mask)
    return {"e_adaptive": float(alignment_of(case, true, false))}


def continuous_alignment(case: Case) -> dict[str, float]:
    """E-measure of the map as it is: no threshold, every grey level aligned by itself."""
    values, size = case.prediction, case.truth.size
    if case.positives == 0:
        total = size - values.sum()
    elif case.negatives == 0:
        total = values.sum()
    else:
        total = _enhanced(values - values.mean(), case.truth - case.positives / size).sum()
    return {"e_continuous": float(_mean(total, size))}
