from __future__ import annotations

import numpy as np

from nnunet_osasis.errors import OsasisError

BRIGHT = 127  # above it lies the foreground of an 8-bit mask that was blurred or stored as JPEG

NEAR = 32  # values within this distance of 0 or 255 are JPEG noise

MOST_BETWEEN = 0.05  # share of pixels further away that soft edges may have

LEVELS = 16  # up to so many values (more than two) are taken for classes


def one_channel(mask: np.ndarray) -> np.ndarray:
    """``(*spatial)`` of a mask ``(C, *spatial)`` whose channels agree up to JPEG noise."""
    if mask.dtype.kind not in "uifb":
        raise OsasisError(
            "A mask must hold numbers", found=f"dtype {mask.dtype}", remedy="Save it as a picture or volume of labels."
        )
    if len(mask) > 1 and int(np.ptp(mask.astype(np.int64), axis=0).max()) > NEAR:
        raise OsasisError(
            "A mask must hold one number per pixel",
            found="a coloured picture",
            remedy="Convert its colours to numbers first.",
        )
    return mask[0]


def binary_labels(mask: np.ndarray, threshold: float | None) -> np.ndarray:
    """0 and 1, uint8.

    Without a threshold: of two values 0 and v, v is foreground; an 8-bit mask with soft edges or JPEG noise (more than
    16 values, at most 5 % of the pixels further than 32 from both 0 and 255) is cut above 127. All else is refused:
    fewer values may be classes.
    """
    if threshold is not None:
        return (mask > threshold).astype(np.uint8)
    values = np.unique(mask)
    if len(values) <= 2 and (values[0] == 0 or len(values) == 1):
        return (mask != 0).astype(np.uint8)
    between = float(((mask > NEAR) & (mask < 255 - NEAR)).mean())
    soft = mask.dtype == np.uint8 and len(values) > LEVELS and values[-1] > BRIGHT
    if soft and between <= MOST_BETWEEN:
        return (mask > BRIGHT).astype(np.uint8)
    shown = ", ".join(map(str, values[:6].tolist())) + (", ..." if len(values) > 6 else "")
    raise OsasisError(
        "A binary mask must hold two values, 0 and another, or nearly so",
        found=f"{len(values)} values ({shown}), {100 * between:.1f} % of the pixels between black and white",
        remedy="Name the classes (--labels background=0 disc=128 cup=255) or state --threshold.",
    )


def _is_value(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10
