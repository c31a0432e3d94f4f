"""Stated rules that divide one folder of images into two domains, and choose a reference without masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.distance import lab_values

MAXIMUM_8_BIT = 255

STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "background_lightness": lambda lab: float(np.median(lab[:, 0])),
    "background_red": lambda lab: float(np.median(lab[:, 1])),
    "background_yellow": lambda lab: float(np.median(lab[:, 2])),
    "background_chroma": lambda lab: float(np.median(np.hypot(lab[:, 1], lab[:, 2]))),
}
"""Of the CIELAB values ``(pixels, 3)`` outside the mask: L*, a*, b*, and chroma."""


def fits_domain(image: np.ndarray, mask: np.ndarray, where: Mapping[str, Any]) -> bool:
    """Whether an image obeys ``{"statistic": ..., "at_least": number, "below": number}``; either bound may be absent.

    Deciding which domain an image belongs to is part of defining the experiment; here the mask is used (pixels outside
    it are the background), and nowhere else before the scoring. Raises ``OsasisError`` for an unknown rule.
    """
    if not where:
        return True
    check_rule(where)
    outside = lab_values(image)[mask == 0]
    if not len(outside):
        return False
    value = STATISTICS[where["statistic"]](outside)
    return where.get("at_least", -np.inf) <= value < where.get("below", np.inf)


def check_rule(where: Mapping[str, Any]) -> None:
    """Raise ``OsasisError`` unless ``where`` is a domain rule, see :func:`fits_domain`."""
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


REFERENCE_RULE = "the image whose median colour (CIELAB) is nearest to the median of all of them; no mask is looked at"


def choose_reference(images: Sequence[np.ndarray]) -> int:
    """Index of the most typical image by :data:`REFERENCE_RULE`; pictures ``(C, H, W)`` uint8."""
    medians = np.stack([np.median(lab_values(image).reshape(-1, 3), axis=0) for image in images])
    return int(np.argmin(np.linalg.norm(medians - np.median(medians, axis=0), axis=1)))
