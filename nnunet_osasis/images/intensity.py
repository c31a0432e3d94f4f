"""Native units to the stylizer's [-1, 1] and back; the only module that knows intensity ranges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real

import numpy as np

from nnunet_osasis.errors import OsasisError

KINDS = ("fixed", "percentile", "channel_percentile")

LARGEST = 1e30
"""Largest magnitude, in native units, that computations in float32 (up to 3e38) bear."""

Bounds = tuple[float, float] | tuple[np.ndarray, np.ndarray]
"""Native values that become -1 and 1: two numbers for all channels, or two arrays ``(C,)``."""

Seen = tuple[float, float, float, float]
"""Over a set of images: the smallest and the largest minimum, the smallest and the largest maximum."""


@dataclass(frozen=True)
class IntensityRange:
    """How native intensities map onto [-1, 1].

    >>> IntensityRange("fixed", 0, 200).bounds(np.zeros((1, 4, 4)))
    (0, 200)

    Attributes:
        kind: ``fixed``: ``low`` and ``high`` are native units, the same for every image (8-bit color: 0 and 255;
            CT: a window in HU). ``percentile``: ``low`` and ``high`` are percentiles taken from each image or volume
            over all channels, for units that differ between scans (16-bit color). ``channel_percentile``: the same,
            channel by channel, for channels with units of their own (MR sequences).
        low: becomes -1.
        high: becomes 1.
        seen: the extreme values of the source images, which ``units.check_units`` compares others with; None if they
            are not known.
    """

    kind: str = "fixed"
    low: float = 0.0
    high: float = 255.0
    seen: Seen | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OsasisError("The intensity kind must be known", found=self.kind, remedy=f"Use one of {KINDS}.")
        numbers = [isinstance(value, Real) and not isinstance(value, bool) for value in (self.low, self.high)]
        if not (all(numbers) and max(abs(self.low), abs(self.high)) < LARGEST and self.low < self.high):
            raise OsasisError("An intensity range needs low < high", found=f"low={self.low}, high={self.high}")
        if self.kind != "fixed" and not (self.low >= 0 and self.high <= 100):
            raise OsasisError(
                "Percentiles must lie in [0, 100]",
                found=f"low={self.low}, high={self.high}",
                remedy="Such as 0.5 and 99.5.",
            )
        if self.seen is not None:
            seen = tuple(float(value) for value in self.seen)
            if not (len(seen) == 4 and max(map(abs, seen)) < LARGEST and seen[0] <= seen[1] and seen[2] <= seen[3]):
                raise OsasisError("The extreme values of images are four numbers that rise by twos", found=self.seen)
            object.__setattr__(self, "seen", seen)  # JSON has lists

    def bounds(self, array: np.ndarray, *, name: str = "the image") -> Bounds:
        """Return the native values that become -1 and 1 for ``array`` ``(C, ...)``.

        Raises:
            OsasisError: a range taken from the image is empty (a constant image or channel).
        """
        if self.kind == "fixed":
            return self.low, self.high
        joint = self.kind == "percentile"
        values = array.reshape(1 if joint else len(array), -1)
        low, high = np.percentile(values, [self.low, self.high], axis=1).astype(np.float64)
        rare = ~(high > low)  # nearly all values equal: the few others span the range
        low, high = np.where(rare, values.min(axis=1), low), np.where(rare, values.max(axis=1), high)
        if not (high > low).all():
            flat = int(np.argmin(high > low))
            raise OsasisError(
                f"{name} must have contrast" + ("" if joint else " in every channel"),
                found=f"{low[flat]:g} everywhere" + ("" if joint else f" in channel {flat}"),
                remedy="Leave constant images out.",
            )
        return (float(low[0]), float(high[0])) if joint else (low, high)

    def to_json(self) -> dict[str, str | float]:
        """Return the JSON form; ``IntensityRange(**value)`` reads it."""
        return asdict(self)


def _columns(bounds: Bounds, ndim: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = (np.asarray(value, dtype=np.float64).reshape(-1, *(1,) * (ndim - 1)) for value in bounds)
    return low, high


def to_unit(array: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Map native units ``(C, ...)`` to [-1, 1], float32; values outside ``bounds`` are clipped."""
    low, high = _columns(bounds, array.ndim)
    return np.clip((np.asarray(array, dtype=np.float64) - low) * (2 / (high - low)) - 1, -1, 1).astype(np.float32)


def from_unit(unit: np.ndarray, bounds: Bounds, original: np.ndarray | None = None) -> np.ndarray:
    """Map [-1, 1] to native units ``(C, ...)``, float32.

    With ``original`` (native), what lay outside ``bounds`` there keeps its excess: metal in a CT stays metal.
    """
    low, high = _columns(bounds, unit.ndim)
    native = (np.asarray(unit, dtype=np.float64) + 1) * ((high - low) / 2) + low
    if original is not None:
        native += original - np.clip(original, low, high)
    return native.astype(np.float32)


def infer_range(
    arrays: Iterable[np.ndarray], schemes: Sequence[str] = (), window: Sequence[float] = ()
) -> IntensityRange:
    """Choose the range for a training set.

    8-bit values (unsigned bytes, or whole numbers in [0, 255] that reach above 1): fixed 0..255. nnU-Net's CT
    scheme in all channels: the window. Images in [0, 1]: fixed 0..1. All else: per-image percentiles 0.5 and 99.5;
    jointly for one and for three channels (color), channel by channel for other counts, and for three when nnU-Net's
    schemes say that they are no colors.

    Args:
        arrays: some training images ``(C, ...)``, native units.
        schemes: nnU-Net's normalization scheme of each channel; empty without a plan.
        window: the plan's foreground percentiles (low, high), for CT.

    Raises:
        OsasisError: there is no image.
    """
    if window and schemes and all("CT" in scheme for scheme in schemes):
        return IntensityRange("fixed", float(window[0]), float(window[1]))
    byte_like, unit_like, channels = True, True, 0
    for array in arrays:
        channels = len(array)
        low, high = float(array.min()), float(array.max())
        whole = array.dtype.kind in "ui" or bool(np.equal(np.mod(array, 1), 0).all())
        byte_like &= array.dtype == np.uint8 or (whole and low >= 0 and 1 < high <= 255)
        unit_like &= array.dtype.kind == "f" and low >= 0 and high <= 1
    if not channels:
        raise OsasisError("An intensity range needs at least one image", found="none")
    if byte_like:
        return IntensityRange("fixed", 0.0, 255.0)
    if unit_like:
        return IntensityRange("fixed", 0.0, 1.0)
    color = channels == 3 and not any("ZScore" in scheme for scheme in schemes)
    kind = "percentile" if channels == 1 or color else "channel_percentile"
    return IntensityRange(kind, 0.5, 99.5)
