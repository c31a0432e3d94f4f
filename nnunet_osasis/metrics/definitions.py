"""What each number is: label, direction, range, source. Tables, JSON and documentation read it here."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """One metric.

    Attributes:
        label: short name for charts and tables.
        group: metrics of one group are computed together.
        better: ``"higher"`` or ``"lower"``; ``""`` for counts that describe the case.
        upper: largest value; the smallest is 0 (of S_region: -1).
        planar: defined on images ``(H, W)`` only.
        text: one sentence.
    """

    label: str
    group: str
    better: str
    upper: float
    planar: bool
    text: str


def _score(label: str, group: str, text: str, *, planar: bool = False) -> Definition:
    return Definition(label, group, "higher", 1.0, planar, text)


METRICS: dict[str, Definition] = {
    "dice": _score("Dice", "overlap", "2 TP / (2 TP + FP + FN) of the mask at the fixed threshold."),
    "iou": _score("IoU", "overlap", "TP / (TP + FP + FN) of the mask at the fixed threshold."),
    "specificity": _score("Specificity", "overlap", "TN / (TN + FP) of the mask at the fixed threshold."),
    "dice_mean": _score("Dice, threshold mean", "thresholds", "Mean of Dice over the 256 thresholds 0/255 to 255/255."),
    "iou_mean": _score("IoU, threshold mean", "thresholds", "Mean of IoU over the same thresholds."),
    "specificity_mean": _score("Specificity, threshold mean", "thresholds", "Mean specificity, same thresholds."),
    "wf": _score("wF", "weighted", "Weighted F-measure, beta 1 (Margolin et al., CVPR 2014).", planar=True),
    "s": _score("S", "structure", "(S_object + S_region) / 2 (Fan et al., ICCV 2017).", planar=True),
    "s_object": _score("S object", "structure", "Object-aware half of the S-measure.", planar=True),
    "s_region": _score("S region", "structure", "Region-aware half of the S-measure; from -1.", planar=True),
    "e_max": _score("E max", "alignment", "Largest E-measure of 256 thresholds (Fan, IJCAI 2018).", planar=True),
    "e_mean": _score("E mean", "alignment", "Mean E-measure of the 256 thresholds.", planar=True),
    "e_adaptive": _score("E adaptive", "adaptive", "E-measure at twice the map's mean, at most 1.", planar=True),
    "e_continuous": _score("E continuous", "continuous", "E-measure of the map without a threshold.", planar=True),
    "mae": Definition("MAE", "error", "lower", 1.0, False, "Mean absolute difference of map and truth."),
    "hd95": Definition(
        "HD95", "hausdorff", "lower", math.inf, False, "95th percentile Hausdorff distance of the mask (MONAI)."
    ),
    "nsd": _score(
        "NSD", "surface", "Normalised surface distance: share of both outlines within the tolerance (MONAI)."
    ),
    "lesions": Definition("Lesions", "lesions", "", math.inf, False, "Connected components of the truth."),
    "lesions_found": Definition("Found", "lesions", "higher", math.inf, False, "Lesions covered to the stated share."),
    "lesions_missed": Definition("Missed", "lesions", "lower", math.inf, False, "Lesions that were not found."),
    "lesions_false": Definition(
        "False", "lesions", "lower", math.inf, False, "Predicted components that lie on truth to less than the share."
    ),
    "lesion_recall": _score("Lesion recall", "lesions", "Found lesions / lesions."),
    "lesion_precision": _score("Lesion precision", "lesions", "Predicted components that are not false / all of them."),
}

PLANAR = tuple(name for name, definition in METRICS.items() if definition.planar)
COUNTS = tuple(name for name, d in METRICS.items() if d.group == "lesions" and math.isinf(d.upper))
