"""Distances between outlines, through MONAI: HD95 and the normalized surface distance (NSD, surface Dice)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from nnunet_osasis.evaluation.metrics.case import Case


def hausdorff95(case: Case) -> dict[str, float]:
    """``hd95`` in the units of the spacing.

    0 when both masks are empty; the image's diagonal, which no distance exceeds, when only one is. (MONAI: NaN and
    infinity. A mean over cases then drops or drowns the misses.)
    """
    empty = (not case.mask.any(), case.positives == 0)
    if any(empty):
        extent = np.multiply(case.truth.shape, case.spacing)
        return {"hd95": 0.0 if all(empty) else float(np.linalg.norm(extent))}
    from monai.metrics import compute_hausdorff_distance

    return {"hd95": _by_monai(compute_hausdorff_distance, case, percentile=95)}


def surface_dice(case: Case) -> dict[str, float]:
    """``nsd`` at the protocol's tolerance: 1 when both masks are empty (MONAI: NaN), 0 when only one is."""
    empty = (not case.mask.any(), case.positives == 0)
    if any(empty):
        return {"nsd": float(all(empty))}
    from monai.metrics import compute_surface_dice

    return {"nsd": _by_monai(compute_surface_dice, case, class_thresholds=[case.protocol.tolerance])}


def _by_monai(metric: Callable[..., Any], case: Case, **options: Any) -> float:
    """Call a metric of MONAI, which takes tensors ``(1, 1, ...)``."""
    import torch

    pair = (torch.from_numpy(mask)[None, None] for mask in (case.mask, case.truth))
    with warnings.catch_warnings():
        # MONAI 1.6 warns about an argument that it gives itself.
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy.*", category=FutureWarning)
        return float(metric(*pair, include_background=True, spacing=list(case.spacing), **options))
