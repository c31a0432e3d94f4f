"""Overlap by pixel (Dice, IoU, specificity, absolute error) and by lesion (found, missed, false)."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from nnunet_osasis.evaluation.metrics.case import Case

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
    hits = case.hits_at(case.protocol.threshold)
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
    prediction, truth = case.pixels
    return {"mae": float(np.abs(prediction - truth).mean())}


def lesions(case: Case) -> dict[str, float]:
    """Counts and rates over connected components (neighbors touch at a side, edge or corner).

    A truth lesion is found when the predicted mask covers at least ``lesion_overlap`` of it, and at least one pixel; a
    predicted component is false when the truth covers less than that share of *it*. Both rules are one rule with the
    masks exchanged. Components need not correspond one to one: a lesion predicted in two pieces is found once.
    Recall is NaN without lesions, precision without predicted components.
    """
    covered, share = _covered(case.truth, case.mask), case.protocol.lesion_overlap
    supported = _covered(case.mask, case.truth)
    found, total = _count(covered, share), len(covered)
    true, predicted = _count(supported, share), len(supported)
    return {
        "lesions": float(total),
        "lesions_found": float(found),
        "lesions_missed": float(total - found),
        "lesions_false": float(predicted - true),
        "lesion_recall": found / total if total else math.nan,
        "lesion_precision": true / predicted if predicted else math.nan,
    }


def _covered(mask: np.ndarray, by: np.ndarray) -> np.ndarray:
    """For each component of ``mask``, which share of it ``by`` covers."""
    labels, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    return np.bincount(labels[by], minlength=count + 1)[1:] / sizes


def _count(shares: np.ndarray, least: float) -> int:
    return int(np.count_nonzero((shares > 0) & (shares >= least)))
