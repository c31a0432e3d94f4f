"""What numbers mean: the metrics, and the protocols, which are all that changes a number besides the pictures.

``standard`` is what the literature defines, ``paper`` is what the columns of the OSASIS segmentation paper's tables
really hold, and ``pysodmetrics`` repeats the conventions of the package of that name. Tables, JSON and documentation
read labels, directions and ranges here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError


@dataclass(frozen=True)
class Protocol:
    """Everything that changes a number.

    Attributes:
        name: how results are labeled.
        columns: the table's columns, ``{heading: metric}``; radar charts show those that lie in [0, 1].
        complete: compute every metric, not only those of the columns, unless metrics are named.
        threshold: fixed threshold of masks; a pixel is foreground from it on (``>=``).
        normalize: stretch each map to [0, 1] by its own minimum and maximum, as PySODMetrics does. It changes what a
            threshold means (the strongest pixel of an empty prediction becomes certain), so it is off unless asked for.
        ddof: 1 for the sample, 0 for the population standard deviation in S_object.
        empty_overlap: Dice and IoU where neither mask has foreground.
        undefined: specificity without background, and weighted F without foreground, in the truth.
        specificity_needs_hit: specificity counts as 0 where no foreground pixel was hit.
        tolerance: of the normalized surface distance, in units of the spacing (millimeters, or pixels without one).
        lesion_overlap: share of a lesion that must be covered; 0 asks for a single pixel.
    """

    name: str
    columns: Mapping[str, str] = field(hash=False)
    complete: bool = False
    threshold: float = 0.5
    normalize: bool = False
    ddof: int = 1
    empty_overlap: float = 1.0
    undefined: float = math.nan
    specificity_needs_hit: bool = False
    tolerance: float = 2.0
    lesion_overlap: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise OsasisError("The threshold must lie in (0, 1]", found=self.threshold, remedy="The usual one is 0.5.")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise OsasisError("The tolerance must be a number of at least 0", found=self.tolerance)
        if not 0 <= self.lesion_overlap <= 1:
            raise OsasisError("The lesion overlap must lie in [0, 1]", found=self.lesion_overlap)


STANDARD = Protocol(
    "standard",
    {
        "Dice": "dice",
        "IoU": "iou",
        "Specificity": "specificity",
        "wF": "wf",
        "S": "s",
        "E max": "e_max",
        "MAE": "mae",
        "HD95": "hd95",
        "NSD": "nsd",
        "Lesion recall": "lesion_recall",
    },
    complete=True,
)

# Shown by recomputing the paper's published maps: docs/evaluation.md, "The paper's columns".
PAPER = Protocol(
    "paper",
    {
        "Dice (threshold mean)": "dice_mean",
        "IoU (threshold mean)": "iou_mean",
        "Spec. (threshold mean)": "specificity_mean",
        "wF": "wf",
        "S_object (as S)": "s_object",
        "E continuous (as E max)": "e_continuous",
        "MAE": "mae",
    },
    ddof=0,
    empty_overlap=0.0,
    specificity_needs_hit=True,
)

PYSODMETRICS = Protocol(
    "pysodmetrics",
    {
        "Dice (threshold mean)": "dice_mean",
        "IoU (threshold mean)": "iou_mean",
        "Spec. (threshold mean)": "specificity_mean",
        "wF": "wf",
        "S": "s",
        "E max": "e_max",
        "E mean": "e_mean",
        "E adaptive": "e_adaptive",
        "MAE": "mae",
    },
    threshold=float(np.nextafter(0.5, 1)),  # its masks are strictly above one half
    normalize=True,
    empty_overlap=0.0,
    undefined=0.0,
)

PROTOCOLS = {protocol.name: protocol for protocol in (STANDARD, PAPER, PYSODMETRICS)}


def choose_protocol(protocol: str | Protocol = "standard", **changes: Any) -> Protocol:
    """Return a protocol by name, with ``changes`` to its fields; changes that are None are left out.

    >>> choose_protocol("standard", tolerance=3.0, normalize=None).tolerance
    3.0
    """
    if isinstance(protocol, str):
        if protocol not in PROTOCOLS:
            raise OsasisError(
                "The protocol must be known", found=protocol, remedy=f"Use one of {', '.join(PROTOCOLS)}."
            )
        protocol = PROTOCOLS[protocol]
    unknown = set(changes) - {f.name for f in fields(Protocol)}
    if unknown:
        raise OsasisError("A protocol has no such setting", found=", ".join(sorted(unknown)))
    return replace(protocol, **{name: value for name, value in changes.items() if value is not None})


@dataclass(frozen=True)
class Definition:
    """One metric.

    Attributes:
        label: short name for charts and tables.
        group: name of the metrics that are computed together with it.
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
        "NSD", "surface", "Normalized surface distance: share of both outlines within the tolerance (MONAI)."
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

COUNTS = tuple(name for name, d in METRICS.items() if d.group == "lesions" and math.isinf(d.upper))
