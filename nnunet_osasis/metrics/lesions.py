"""Lesion by lesion: how many were found, how many missed, how many predicted where there are none."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from nnunet_osasis.metrics.case import Case


def lesions(case: Case) -> dict[str, float]:
    """Counts and rates over connected components (neighbours touch at a side, edge or corner).

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
