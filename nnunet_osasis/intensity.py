"""Native units to the stylizer's [-1, 1] and back. The only place that knows intensity ranges."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from nnunet_osasis.errors import OsasisError

KINDS = ("fixed", "percentile")


@dataclass(frozen=True)
class IntensityRange:
    """How native intensities map onto [-1, 1].

    Attributes:
        kind: ``fixed``: ``low`` and ``high`` are native units, the same for every image (8-bit colour: 0 and 255;
            CT: a window in HU). ``percentile``: ``low`` and ``high`` are percentiles taken from each image, for
            units that differ between scans (MR).
        low, high: become -1 and 1.
    """

    kind: str = "fixed"
    low: float = 0.0
    high: float = 255.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OsasisError("The intensity kind must be known", found=self.kind, remedy=f"Use one of {KINDS}.")
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise OsasisError("An intensity range needs low < high", found=f"low={self.low}, high={self.high}")

    def bounds(self, array: np.ndarray, *, name: str = "the image") -> tuple[float, float]:
        """The native values that become -1 and 1 for ``array`` ``(C, ...)``. Raises ``OsasisError`` when a
        per-image range is empty (a constant image)."""
        if self.kind == "fixed":
            return self.low, self.high
        low, high = (float(v) for v in np.percentile(array, [self.low, self.high]))
        if not high > low:
            raise OsasisError(
                f"{name} must have contrast",
                found=f"percentiles {self.low:g} and {self.high:g} both at {low:g}",
                remedy="Leave constant images out.",
            )
        return low, high

    def to_json(self) -> dict[str, str | float]:
        """JSON form; ``IntensityRange(**value)`` reads it."""
        return asdict(self)


def to_unit(array: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """Native units to [-1, 1], float32; values outside ``bounds`` are clipped."""
    low, high = bounds
    return np.clip((np.asarray(array, dtype=np.float64) - low) * (2 / (high - low)) - 1, -1, 1).astype(np.float32)


def from_unit(unit: np.ndarray, bounds: tuple[float, float], original: np.ndarray | None = None) -> np.ndarray:
    """[-1, 1] to native units, float32.

    With ``original`` (native), what lay outside ``bounds`` there keeps its excess: metal in a CT stays metal.
    """
    low, high = bounds
    native = (np.asarray(unit, dtype=np.float64) + 1) * ((high - low) / 2) + low
    if original is not None:
        native += original - np.clip(original, low, high)
    return native.astype(np.float32)


def infer_range(
    arrays: Iterable[np.ndarray], schemes: Sequence[str] = (), window: Sequence[float] = ()
) -> IntensityRange:
    """Choose the range for a training set.

    8-bit values (unsigned bytes, or whole numbers in [0, 255] that reach above 1): fixed 0..255. nnU-Net's CT
    scheme: the plans' foreground percentiles ``window`` (low, high). Images in [0, 1] throughout: fixed 0..1.
    All else: per-image percentiles 0.5 and 99.5.

    Args:
        arrays: some training images, native units.
        schemes: nnU-Net's normalization scheme names, if there is a plan.
    """
    if window and any("CT" in scheme for scheme in schemes):
        return IntensityRange("fixed", float(window[0]), float(window[1]))
    byte_like, unit_like, seen = True, True, False
    for array in arrays:
        seen = True
        low, high = float(array.min()), float(array.max())
        whole = array.dtype.kind in "ui" or bool(np.equal(np.mod(array, 1), 0).all())
        byte_like &= array.dtype == np.uint8 or (whole and low >= 0 and 1 < high <= 255)
        unit_like &= array.dtype.kind == "f" and low >= 0 and high <= 1
    if not seen:
        raise OsasisError("An intensity range needs at least one image", found="none")
    if byte_like:
        return IntensityRange("fixed", 0.0, 255.0)
    return IntensityRange("fixed", 0.0, 1.0) if unit_like else IntensityRange("percentile", 0.5, 99.5)
