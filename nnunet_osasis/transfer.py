"""What every style transfer offers, so that a control can stand wherever the stylizer stands."""

from __future__ import annotations

from numbers import Real
from typing import Protocol, runtime_checkable

import numpy as np

from nnunet_osasis.errors import OsasisError


@runtime_checkable
class StyleTransfer(Protocol):
    """A deterministic map from images of the source domain to images in the target's style.

    The stylizer and the controls (histogram matching, pooled Reinhard, ...) satisfy it; the nnU-Net
    cache and the demo ask for nothing else.
    """

    @property
    def in_channels(self) -> int:
        """Number of image channels it accepts."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that determines the output: weights, configuration, reference."""
        ...

    def stylize_array(self, array: np.ndarray, *, strength: float | None = None) -> np.ndarray:
        """Stylize one image ``(C, H, W)`` or volume ``(C, D, H, W)`` (slices along ``D``) in native units.

        ``strength`` in [0, 1]; 0 returns an equal copy; None takes the transfer's own default. Same shape
        out, float32, native units. Raises ``OsasisError`` for wrong rank or channels, NaN or infinity.
        """
        ...


def is_number(value: object) -> bool:
    """Whether a value counts as a number here: numpy's do, truth values do not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_strength(strength: float) -> float:
    """Raise ``OsasisError`` unless ``strength`` is a number in [0, 1]."""
    if not is_number(strength) or not 0 <= strength <= 1:
        raise OsasisError("strength must lie in [0, 1]", found=strength, remedy="0 keeps the image, 1 is full style.")
    return float(strength)
