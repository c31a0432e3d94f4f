"""Rules that divide one folder of images into two domains, and that choose a reference without masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.distance import lab_values

Where = TypeVar("Where", bound=Mapping[str, Any])

STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "background_lightness": lambda lab: float(np.median(lab[:, 0])),
    "background_red": lambda lab: float(np.median(lab[:, 1])),
    "background_yellow": lambda lab: float(np.median(lab[:, 2])),
    "background_chroma": lambda lab: float(np.median(np.hypot(lab[:, 1], lab[:, 2]))),
}
"""Statistics of the CIELAB values ``(pixels, 3)`` outside the mask: medians of L*, a*, b*, and chroma."""


def fits_domain(image: np.ndarray, mask: np.ndarray, where: Mapping[str, Any]) -> bool:
    """Whether an image obeys ``{"statistic": ..., "at_least": number, "below": number}``; either bound may be absent.

    Deciding which domain an image belongs to is part of defining the experiment; here the mask is used (pixels outside
    it are the background), and nowhere else before the scoring.

    Args:
        image: ``(C, H, W)`` uint8.
        mask: ``(H, W)`` of 0 and 1.
        where: the rule; an empty one holds for every image.

    Raises:
        OsasisError: the rule is unknown.
    """
    if not check_rule(where):
        return True
    outside = lab_values(image)[mask == 0]
    if not len(outside):
        return False
    value = STATISTICS[where["statistic"]](outside)
    return where.get("at_least", -np.inf) <= value < where.get("below", np.inf)


def check_rule(where: Where) -> Where:
    """Return a domain rule, see :func:`fits_domain`. Raises ``OsasisError`` where it is none."""
    if not where:
        return where
    if unknown := set(where) - {"statistic", "at_least", "below"}:
        raise OsasisError("A domain rule has a statistic, at_least and below", found=f"also {sorted(unknown)}")
    bounds = [where[key] for key in ("at_least", "below") if key in where]
    if not all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds):
        raise OsasisError("The bounds of a domain rule must be numbers", found=bounds)
    statistic = where.get("statistic")
    if not isinstance(statistic, str) or statistic not in STATISTICS:
        raise OsasisError(
            "The statistic of a domain rule must be known", found=statistic, remedy=f"Known: {', '.join(STATISTICS)}."
        )
    return where


REFERENCE_RULE = "the image whose median color (CIELAB) is nearest to the median of all of them; no mask is looked at"


def choose_reference(images: Sequence[np.ndarray]) -> int:
    """Index of the most typical image by :data:`REFERENCE_RULE`; pictures ``(C, H, W)`` uint8."""
    medians = np.stack([np.median(lab_values(image).reshape(-1, 3), axis=0) for image in images])
    return int(np.argmin(np.linalg.norm(medians - np.median(medians, axis=0), axis=1)))
