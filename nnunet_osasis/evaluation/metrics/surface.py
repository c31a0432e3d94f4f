"""Distances between outlines, through MONAI: HD95 and the normalised surface distance (NSD, surface Dice).

Lesion by lesion: how many were found, how many missed, how many predicted where there are none.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from scipy import ndimage

from nnunet_osasis.evaluation.metrics.case import Case


def hausdorff95(case: Case) -> dict[str, float]:
    """``hd95`` in the units of the spacing.

    0 when both masks are empty; the image's diagonal, which no distance exceeds, when only one is. (MONAI: NaN and
    infinity. A mean over cases then drops or drowns the misses.)
    """
    if not case.mask.any() or case.positives == 0:
        extent = [size * step for size, step in zip(case.truth.shape, case.spacing, strict=True)]
        return {"hd95": float(np.linalg.norm(extent)) if case.mask.any() or case.positives else 0.0}
    from monai.metrics import compute_hausdorff_distance

    with _quiet():
        found = compute_hausdorff_distance(
            *_tensors(case), include_background=True, percentile=95, spacing=list(case.spacing)
        )
    return {"hd95": float(found)}


def surface_dice(case: Case) -> dict[str, float]:
    """``nsd`` at the protocol's tolerance: 1 when both masks are empty (MONAI: NaN), 0 when only one is."""
    if not case.mask.any() or case.positives == 0:
        return {"nsd": 0.0 if case.mask.any() or case.positives else 1.0}
    from monai.metrics import compute_surface_dice

    tolerance, spacing = [case.protocol.tolerance], list(case.spacing)
    with _quiet():
        found = compute_surface_dice(
            *_tensors(case), class_thresholds=tolerance, include_background=True, spacing=spacing
        )
    return {"nsd": float(found)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning of MONAI 1.6 about an argument that it gives itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy.*", category=FutureWarning)
        yield


def _tensors(case: Case) -> tuple:
    """Mask and truth as MONAI wants them: ``(1, 1, ...)``."""
    import torch

    return torch.from_numpy(case.mask)[None, None], torch.from_numpy(case.truth)[None, None]


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
