"""What the numbers of a mask mean: foreground or classes, and which masks are too doubtful to say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from nnunet_osasis.errors import OsasisError

BRIGHT = 127
"""Gray level above which the foreground of an 8-bit mask with soft edges or JPEG noise lies."""

NEAR = 32
"""Distance from 0 or 255, in gray levels, within which a pixel of an 8-bit mask counts as black or white."""

MOST_BETWEEN = 0.05
"""Largest share of pixels between black and white that soft edges may have."""

LEVELS = 16
"""Largest number of different values that are taken for classes; soft edges and JPEG noise have more."""


def one_channel(mask: np.ndarray) -> np.ndarray:
    """Return the first channel ``(*spatial)`` of a mask ``(C, *spatial)`` whose channels say the same.

    They may differ by JPEG noise in an 8-bit mask of black and white; else they must be equal.

    Raises:
        OsasisError: the mask holds no numbers, or its channels differ (colors, one-hot classes).
    """
    if mask.dtype.kind not in "uifb":
        raise OsasisError(
            "A mask must hold numbers", found=f"dtype {mask.dtype}", remedy="Save it as a picture or volume of labels."
        )
    if len(mask) == 1 or (mask == mask[:1]).all():
        return mask[0]
    noisy = mask.dtype == np.uint8 and mask.max() > BRIGHT and len(np.unique(mask)) > LEVELS
    if not noisy or int(np.ptp(mask.astype(np.int16), axis=0).max()) > NEAR:
        raise OsasisError(
            "A mask must hold one number per pixel",
            found=f"{len(mask)} channels that differ (a colored picture, or one channel per class)",
            remedy="Convert its colors or channels to numbers first.",
        )
    return mask[0]


def share_between(mask: np.ndarray) -> float:
    """Return the share of pixels that are neither near 0 nor near 255."""
    return float(((mask > NEAR) & (mask < 255 - NEAR)).mean())


def binary_labels(mask: np.ndarray, threshold: float | None) -> np.ndarray:
    """Turn a mask of one foreground into 0 and 1, uint8.

    With a threshold, foreground is what lies above. Without one: of two values 0 and v, v is foreground; an 8-bit mask
    with soft edges or JPEG noise (more than 16 values, at most 5 % of the pixels further than 32 from both 0 and 255)
    is cut above 127.

    Raises:
        OsasisError: all else, as few values may be classes.
    """
    if threshold is not None:
        return (mask > threshold).astype(np.uint8)
    values = np.unique(mask)
    if len(values) <= 2 and (values[0] == 0 or len(values) == 1):
        return (mask != 0).astype(np.uint8)
    between = share_between(mask)
    soft = mask.dtype == np.uint8 and len(values) > LEVELS and values[-1] > BRIGHT
    if soft and between <= MOST_BETWEEN:
        return (mask > BRIGHT).astype(np.uint8)
    shown = ", ".join(map(str, values[:6].tolist())) + (", ..." if len(values) > 6 else "")
    raise OsasisError(
        "A binary mask must hold two values, 0 and another, or nearly so",
        found=f"{len(values)} values ({shown}), {100 * between:.1f} % of the pixels between black and white",
        remedy="Name the classes (--labels background=0 disc=128 cup=255) or state --threshold.",
    )


def class_labels(mask: np.ndarray, classes: Mapping[str, int]) -> np.ndarray:
    """Turn a mask of several classes into their numbers 0, 1, 2, ... in the order of ``classes``, uint8.

    Raises:
        OsasisError: the mask holds a value of no class.
    """
    labels = np.full(mask.shape, 255, np.uint8)
    for label, value in enumerate(classes.values()):
        labels[mask == value] = label
    if (labels == 255).any():
        stray = np.unique(mask[labels == 255]).tolist()
        raise OsasisError(
            f"A mask may hold the values {', '.join(map(str, classes.values()))} of --labels",
            found=f"also {', '.join(map(str, stray[:6]))}",
            remedy="Name all classes.",
        )
    return labels


def foreground_value(mask: np.ndarray) -> int | None:
    """Return the foreground's value in a mask of 0 and one more value, else None."""
    values = np.unique(mask)
    values = values[values != 0]
    if len(values) != 1:
        return None
    return 255 if mask.dtype == np.uint8 and values[0] >= 255 - NEAR else int(values[0])


def require_one_foreground(values: Iterable[int | None]) -> None:
    """Refuse binary masks that disagree about :func:`foreground_value`: they may be classes of one label map."""
    distinct = sorted({value for value in values if value is not None})
    if len(distinct) > 1:
        raise OsasisError(
            "The foreground of binary masks must have one value in all of them",
            found=f"the values {', '.join(map(str, distinct[:6]))}",
            remedy="If they are classes, name them (--labels background=0 a=1 b=2); else state --threshold 0.",
        )
