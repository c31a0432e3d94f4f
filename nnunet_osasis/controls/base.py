"""The base of all controls: input checks, slices of volumes, strength, clipping to the native range."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import check_array
from nnunet_osasis.images.intensity import LARGEST
from nnunet_osasis.transfer import check_strength, is_number

EIGHT_BIT = (0.0, 255.0)
"""Native range of 8-bit pictures."""

ROUNDING = 1e-3
"""Largest rounding error of 8-bit values that went through float32 and a division by 255."""


def check_whole(name: str, value: int, *, least: int) -> int:
    """Return ``value`` as an int. Raises ``OsasisError`` unless it is a whole number of at least ``least``."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise OsasisError(
            f"{name} must be a whole number of at least {least}", found=f"{value!r:.60}", remedy="Give such a number."
        )
    return int(value)


def check_range(limits: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return a native range or None. Raises ``OsasisError`` unless it is two finite numbers that do not fall."""
    if limits is None:
        return None
    pair = isinstance(limits, Sequence) and len(limits) == 2 and all(is_number(v) and abs(v) < LARGEST for v in limits)
    if not pair or limits[0] > limits[1]:
        raise OsasisError("value_range must be two rising numbers", found=f"{limits!r:.60}", remedy="Such as (0, 255).")
    return limits


class Control(ABC):
    """A style transfer that needs no training. A subclass changes single slices, or whole volumes.

    Args:
        in_channels: number of image channels.
        value_range: results are clipped to this interval of native units; None leaves them as they are.
    """

    def __init__(self, in_channels: int, value_range: tuple[float, float] | None) -> None:
        self._in_channels = check_whole("in_channels", in_channels, least=1)
        self.value_range = check_range(value_range)

    @property
    def in_channels(self) -> int:
        """Number of image channels it accepts."""
        return self._in_channels

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that determines the output."""

    def _stylize_slice(self, image: np.ndarray) -> np.ndarray:
        """Restyle one slice ``(C, H, W)`` float64, native units, at full strength, unclipped."""
        raise NotImplementedError

    def _stylize_whole(self, array: np.ndarray) -> np.ndarray:
        """Restyle an image ``(C, H, W)`` or volume ``(C, D, H, W)`` float64 at full strength, unclipped."""
        if array.ndim == 3:
            return self._stylize_slice(array)
        return np.stack([self._stylize_slice(array[:, depth]) for depth in range(array.shape[1])], axis=1)

    def stylize_array(self, array: np.ndarray, *, strength: float | None = None) -> np.ndarray:
        """Stylize one image ``(C, H, W)`` or volume ``(C, D, H, W)`` (slices along ``D``) in native units.

        ``strength`` in [0, 1] blends linearly (None is 1): 0 returns an equal copy. Same shape out, float32.
        Raises ``OsasisError`` for wrong rank or channels, NaN or infinity, or a strength outside [0, 1].
        """
        return self._blended(array, strength, self._stylize_whole, self.value_range)

    def _blended(
        self,
        array: np.ndarray,
        strength: float | None,
        stylize: Callable[[np.ndarray], np.ndarray],
        value_range: tuple[float, float] | None,
    ) -> np.ndarray:
        """Check the image, call ``stylize``, clip and blend."""
        check_array(array, channels=self._in_channels)
        weight = 1.0 if strength is None else float(check_strength(strength))
        if weight == 0:
            return array.astype(np.float32)
        source = array.astype(np.float64)
        styled = stylize(source)
        if value_range is not None:
            styled = np.clip(styled, *value_range)
        return (source + weight * (styled - source) if weight < 1 else styled).astype(np.float32)


def native_range(images: Iterable[np.ndarray]) -> tuple[float, float]:
    """Return the interval of native units that ``images`` live in.

    Integer images have their type's interval. nnU-Net's readers return 8-bit pictures as float32, so whole numbers
    within 0 to 255 count as 8 bit; other float images have the interval that they span.
    """
    low, high, whole = np.inf, -np.inf, True
    for image in images:
        if image.dtype.kind in "ui":
            limits = np.iinfo(image.dtype)
            return float(limits.min), float(limits.max)
        low, high = min(low, float(image.min())), max(high, float(image.max()))
        whole = whole and bool((np.abs(image - np.rint(image)) < ROUNDING).all())
    if whole and low >= EIGHT_BIT[0] - ROUNDING and EIGHT_BIT[1] + ROUNDING >= high > 2:
        return EIGHT_BIT
    return low, high
