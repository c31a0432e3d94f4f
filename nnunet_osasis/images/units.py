"""Whether values can be in a stylizer's units: the one rule that every door asks before an image is restyled.

A stylizer of a fixed range (8-bit values, a window of Hounsfield units) reads values as they are. Images that were
scaled to [0, 1], z-scores, or of another bit depth or modality would be clipped to one end of its range. A range that
is taken from each image (percentiles) fits any scale, so nothing is refused there.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.intensity import IntensityRange, Seen

SAMPLE = 200_000
"""Number of values, evenly spread over an image, that percentiles are taken of."""

FAR = 0.5
"""Excess over the known values, as a share of their span, from which on an image is refused."""

NEAR = 0.02
"""Excess over the known values, as a share of their span, that a warning tells of (resampling and noise overshoot)."""

NORMALIZED = 8.0
"""Magnitude that nearly all z-scores, and all values in [0, 1] or [-1, 1], stay below."""

MIN_SPAN = 60.0
"""Span of a range from which on fractions below ``NORMALIZED`` are none of its values."""

FEW = 0.01
"""Share of values other than the background below which an image says nothing about its scale."""

EXACT = ((0, 255), (0, 1))
"""Ranges that hold all values of their units; a window (CT) does not."""


class UnitsError(OsasisError):
    """An image whose values cannot be the stylizer's."""


class UnitsWarning(UserWarning):
    """An image whose values may not be the stylizer's."""


def add_seen(intensity: IntensityRange, seen: list[Seen]) -> IntensityRange:
    """Add the least and greatest values of source images, each ``(minimum, minimum, maximum, maximum)``."""
    known = np.array([*seen, *([intensity.seen] if intensity.seen else [])], dtype=np.float64)
    low, high = known[:, :2], known[:, 2:]
    return replace(intensity, seen=(low.min(), low.max(), high.min(), high.max()))


def check_units(array: np.ndarray, intensity: IntensityRange, *, name: str = "the image") -> None:
    """Refuse values that cannot be in the units of a fixed range; warn where it is a matter of degree.

    Dark, constant and mostly empty images pass.

    Args:
        array: finite values of any shape, native units.
        intensity: the stylizer's range, with the values of its source images where it knows them.
        name: how messages name the image.

    Raises:
        UnitsError: truth values; fractions in [0, 1], [-1, 1] or z-scores for a range of larger numbers; values far
            beyond all values of the source images; values above 0 only for Hounsfield units.
    """
    if array.dtype == bool:
        raise UnitsError(f"{name} must hold intensities", found="dtype bool", remedy="Convert it to numbers.")
    if intensity.kind != "fixed":
        return
    least, greatest = float(array.min()), float(array.max())
    sample = np.asarray(array.reshape(-1)[:: max(1, array.size // SAMPLE)], dtype=np.float64)
    wrong, doubtful = _fault(sample, least, greatest, intensity, unsigned=array.dtype == np.uint8)
    if wrong or doubtful:
        low, high = _known(intensity)
        window = "" if (low, high) == (intensity.low, intensity.high) else (
            f", of which it restyles the range {intensity.low:g} to {intensity.high:g}"
        )  # fmt: skip
        rule = f"{name} must be in the stylizer's units (range {low:g} to {high:g}{window})"
        found = f"values from {least:.4g} to {greatest:.4g}, {wrong or doubtful}"
        if wrong:
            raise UnitsError(
                rule, found=found, remedy="Convert it to the units and the bit depth of the stylizer's training images."
            )
        warnings.warn(f"{rule}; got {found}. It is restyled as if it were.", UnitsWarning, stacklevel=3)


def _known(intensity: IntensityRange) -> tuple[float, float]:
    """Return the least and the greatest value that is known to be in the stylizer's units."""
    seen = intensity.seen or (intensity.low, 0, 0, intensity.high)
    return min(intensity.low, seen[0]), max(intensity.high, seen[3])


def _fault(
    sample: np.ndarray, least: float, greatest: float, intensity: IntensityRange, *, unsigned: bool
) -> tuple[str, str]:
    """Return why values are refused and why they are doubtful, either of which may be empty."""
    low, high = _known(intensity)
    rest = sample[sample > least]  # what is not background
    top = float(np.percentile(rest, 99)) if rest.size else greatest
    bottom = float(np.percentile(rest if low < 0 and rest.size else sample, 1))  # a scanner pads below all tissue
    excess = max(low - bottom, top - high) / (high - low)
    whole = bool((sample == np.rint(sample)).all())
    told = intensity.seen is not None or (intensity.low, intensity.high) in EXACT
    if told and (excess > FAR or (excess > NEAR and whole and (low, high) == EXACT[0])):
        return "of another bit depth or modality", ""
    if rest.size < FEW * sample.size:
        return "", ""
    fractions = float((rest != np.rint(rest)).mean()) > 0.5
    if fractions and high - low >= MIN_SPAN:
        scaled = least >= 0 and greatest <= 1.001 and low >= 0
        centered = float(np.percentile(np.abs(rest), 99)) <= NORMALIZED and (low < 0 or float((rest < 0).mean()) > 0.05)
        if scaled or centered:
            return "as scaling to [0, 1] or a z-score gives", ""
    if intensity.seen is not None:
        if intensity.seen[1] < -NEAR * (high - low) and least >= 0:  # all source images reach below 0
            reason = "none below 0, unlike every training image"
            refused = unsigned or (fractions and greatest <= 1.001) or float((sample == 0).mean()) > FEW
            return (reason, "") if refused else ("", reason)
        if unsigned and high > 4 * 255 and greatest < intensity.seen[2] / 8 and greatest > 127:
            return "8 bits where the training images have more", ""
    return "", "some beyond all values of its training images" if told and excess > NEAR else ""
