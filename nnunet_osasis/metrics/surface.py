"""Distances between outlines, through MONAI: HD95 and the normalised surface distance (NSD, surface Dice)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from nnunet_osasis.metrics.case import Case


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
