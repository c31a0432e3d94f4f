"""Dice, IoU, specificity and mean absolute error, at one threshold or averaged over all."""

from __future__ import annotations

import numpy as np

from nnunet_osasis.metrics.case import Case

Counts = np.ndarray | int


def _ratio(numerator: Counts, denominator: Counts, otherwise: float) -> np.ndarray:
    """``numerator / denominator``, and ``otherwise`` where the denominator is 0."""
    bottom = np.asarray(denominator, dtype=float)
    return np.divide(numerator, bottom, out=np.full(bottom.shape, otherwise), where=bottom != 0)


def dice_of(case: Case, true: Counts, false: Counts) -> np.ndarray:
    """``2 TP / (2 TP + FP + FN)``; the protocol's ``empty_overlap`` where neither side has foreground."""
    return _ratio(2 * true, true + false + case.positives, case.protocol.empty_overlap)


def iou_of(case: Case, true: Counts, false: Counts) -> np.ndarray:
    """``TP / (TP + FP + FN)``; the protocol's ``empty_overlap`` where neither side has foreground."""
    return _ratio(true, false + case.positives, case.protocol.empty_overlap)


def specificity_of(case: Case, true: Counts, false: Counts) -> np.ndarray:
    """``TN / (TN + FP)``; the protocol's ``undefined`` for a truth without background."""
    values = _ratio(case.negatives - false, np.full_like(false, case.negatives), case.protocol.undefined)
    return np.where(np.asarray(true) > 0, values, 0.0) if case.protocol.specificity_needs_hit else values


def overlap(case: Case) -> dict[str, float]:
    """The three at the protocol's threshold."""
    hits = case.hits_of(case.mask)
    return {
        "dice": float(dice_of(case, *hits)),
        "iou": float(iou_of(case, *hits)),
        "specificity": float(specificity_of(case, *hits)),
    }


def thresholds(case: Case) -> dict[str, float]:
    """The three as means over 256 thresholds: overlap and calibration in one number."""
    return {
        "dice_mean": float(dice_of(case, *case.hits).mean()),
        "iou_mean": float(iou_of(case, *case.hits).mean()),
        "specificity_mean": float(specificity_of(case, *case.hits).mean()),
    }


def absolute_error(case: Case) -> dict[str, float]:
    """Mean of ``|map - truth|``."""
    return {"mae": float(np.abs(case.prediction - case.truth).mean())}
