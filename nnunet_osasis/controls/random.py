"""The base of the random controls: parameters are drawn in one place and applied in another."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from nnunet_osasis.controls.base import Control, check_whole, native_range
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import check_array
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_json
from nnunet_osasis.transfer import is_number

Interval = tuple[float, float]
"""Lowest and highest value."""


class RandomControl(Control):
    """A random change of appearance that needs no reference image.

    :meth:`augment` draws afresh. :meth:`stylize_array` is deterministic, so that a random control can stand wherever
    the stylizer stands: its random stream comes from the seed and the image's own values. A volume is one draw.

    Args:
        in_channels: number of image channels.
        seed: a non-negative integer.
        value_range: native interval; None takes each image's own (integers: their type's; 8-bit values as float:
            0 to 255; other floats: what they span).
        settings: everything else that determines the output, JSON-ready.

    Raises:
        OsasisError: no channels, or a negative seed.
    """

    def __init__(self, in_channels: int, *, seed: int, value_range: Interval | None, settings: dict[str, Any]) -> None:
        super().__init__(in_channels, value_range)
        self.seed, self._settings = check_whole("seed", seed, least=0), settings

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the kind, the settings, the seed, the channel count and the native range."""
        kind = {"control": type(self).__name__, "channels": self.in_channels, "range": self.value_range}
        return sha256_of_json({**kind, "seed": self.seed, "settings": self._settings})

    @abstractmethod
    def draw(self, rng: np.random.Generator, *, value_range: Interval) -> Any:
        """Draw the parameters of one image."""

    @abstractmethod
    def apply(self, array: np.ndarray, parameters: Any, *, value_range: Interval) -> np.ndarray:
        """Change ``(C, H, W)`` or ``(C, D, H, W)`` float64, native units, by ``parameters``; unclipped."""

    def stylize_array(self, array: np.ndarray, *, strength: float | None = None) -> np.ndarray:
        """Stylize as ``StyleTransfer`` says: the same image is always changed the same way."""
        check_array(array, channels=self.in_channels)
        # As float64 in rows of channels: uint8 and float copies of a picture agree, and so does its one-slice volume.
        values = sha256_of_array(array.astype(np.float64).reshape(self.in_channels, -1))
        return self.augment(array, np.random.default_rng([self.seed, int(values, 16)]), strength=strength)

    def augment(self, array: np.ndarray, rng: np.random.Generator, *, strength: float | None = None) -> np.ndarray:
        """Change ``array`` by a new draw from ``rng``; otherwise as :meth:`Control.stylize_array`."""
        check_array(array, channels=self.in_channels)
        bounds = self.value_range or native_range([array])

        def change(source: np.ndarray) -> np.ndarray:
            return self.apply(source, self.draw(rng, value_range=bounds), value_range=bounds)

        return self._blended(array, strength, change, bounds)


def check_interval(name: str, interval: Interval, *, lowest: float, highest: float = float("inf")) -> Interval:
    """Return two floats. Raises ``OsasisError`` unless ``lowest <= interval[0] <= interval[1] <= highest``."""
    pair = isinstance(interval, Sequence) and len(interval) == 2 and all(is_number(value) for value in interval)
    if not pair or not lowest <= interval[0] <= interval[1] <= highest:
        raise OsasisError(
            f"{name} must be an interval within [{lowest}, {highest}]",
            found=f"{interval!r:.60}",
            remedy="Give (lowest, highest).",
        )
    return float(interval[0]), float(interval[1])
