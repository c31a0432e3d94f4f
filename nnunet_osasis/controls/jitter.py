"""Random brightness, contrast and color, and random curves of intensity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nnunet_osasis.controls.base import EIGHT_BIT, check_whole
from nnunet_osasis.controls.random import Interval, RandomControl, check_interval

Change = tuple[str, float]
"""Name and value of one adjustment."""


class ColorJitter(RandomControl):
    """Brightness, contrast, saturation and hue of 8-bit RGB; brightness, contrast and gamma of every other channel.

    RGB goes through torchvision's functional ``ColorJitter``, in random order. Other images (and three channels that
    are not 8-bit) are taken to [0, 1] by their native range and changed channel by channel, each channel with a draw
    of its own: ``b u``, then ``c (u - mean u) + mean u``, then ``u ** gamma``.

    Args:
        in_channels: number of image channels.
        brightness: in [0, 1]; the factor is drawn from ``[1 - brightness, 1 + brightness]``.
        contrast: in [0, 1]; as ``brightness``.
        saturation: in [0, 1]; as ``brightness``.
        hue: largest turn as a fraction of the circle, in [0, 0.5].
        gamma: interval that the exponent is drawn from (its logarithm uniformly).
        seed: as in :class:`RandomControl`.
        value_range: as in :class:`RandomControl`.

    Raises:
        OsasisError: a number out of range.

    >>> ColorJitter(1, seed=1).stylize_array(np.zeros((1, 4, 4), dtype=np.uint8)).shape
    (1, 4, 4)
    """

    def __init__(
        self,
        in_channels: int,
        *,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        gamma: Interval = (0.7, 1.5),
        seed: int = 0,
        value_range: Interval | None = None,
    ) -> None:
        self._widths = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
        for name, value in self._widths.items():
            check_interval(name, (value, value), lowest=0, highest=0.5 if name == "hue" else 1)
        self._gamma = check_interval("gamma", gamma, lowest=1e-3)
        settings = {**self._widths, "gamma": self._gamma}
        super().__init__(in_channels, seed=seed, value_range=value_range, settings=settings)

    def draw(self, rng: np.random.Generator, *, value_range: Interval) -> list[Change] | list[list[Change]]:
        """Draw ``(name, value)`` in the order of application for RGB, such a list per channel for other images."""
        if self._is_rgb(value_range):
            drawn = [(name, self._factor(rng, name)) for name in self._widths]
            return [drawn[i] for i in rng.permutation(len(drawn))]
        low, high = np.log(self._gamma)
        return [
            [
                ("brightness", self._factor(rng, "brightness")),
                ("contrast", self._factor(rng, "contrast")),
                ("gamma", float(np.exp(rng.uniform(low, high)))),
            ]
            for _ in range(self.in_channels)
        ]

    def apply(self, array: np.ndarray, parameters: Any, *, value_range: Interval) -> np.ndarray:
        """Adjust ``array``; contrast turns about the mean of the whole image or volume."""
        low, high = value_range
        span = high - low or 1.0
        units = np.clip((array - low) / span, 0, 1)
        if self._is_rgb(value_range):
            changed = _jitter_rgb(units, parameters)
        else:
            changed = np.stack([_jitter_channel(u, changes) for u, changes in zip(units, parameters, strict=True)])
        return changed * span + low

    def _is_rgb(self, value_range: Interval) -> bool:
        return self.in_channels == 3 and tuple(value_range) == EIGHT_BIT

    def _factor(self, rng: np.random.Generator, name: str) -> float:
        width = self._widths[name]
        return float(rng.uniform(-width, width)) + (0.0 if name == "hue" else 1.0)


def _jitter_rgb(units: np.ndarray, changes: list[Change]) -> np.ndarray:
    from torchvision.transforms.v2 import functional

    adjust: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
        "brightness": functional.adjust_brightness,
        "contrast": functional.adjust_contrast,
        "saturation": functional.adjust_saturation,
        "hue": functional.adjust_hue,
    }
    # A volume becomes one tall picture, so that its slices share the mean that contrast turns about.
    picture = torch.from_numpy(units.reshape(3, -1, units.shape[-1]).astype(np.float32))
    for name, value in changes:
        picture = adjust[name](picture, value)
    return picture.numpy().astype(np.float64).reshape(units.shape)


def _jitter_channel(units: np.ndarray, changes: list[Change]) -> np.ndarray:
    for name, value in changes:
        if name == "brightness":
            units = units * value
        elif name == "contrast":
            units = value * (units - units.mean()) + units.mean()
        else:
            units = units**value
        units = np.clip(units, 0, 1)
    return units


class HistogramShift(RandomControl):
    """A random rising curve of intensity for every channel: MONAI's ``RandHistogramShift``.

    Minimum and maximum of every channel stay.

    Args:
        in_channels: number of image channels.
        control_points: number of points of the curve, at least 3; fewer make larger changes.
        seed: as in :class:`RandomControl`.
        value_range: as in :class:`RandomControl`.

    Raises:
        OsasisError: fewer than 3 control points.
    """

    def __init__(
        self, in_channels: int, *, control_points: int = 10, seed: int = 0, value_range: Interval | None = None
    ) -> None:
        self.control_points = check_whole("control_points", control_points, least=3)
        settings = {"control_points": self.control_points}
        super().__init__(in_channels, seed=seed, value_range=value_range, settings=settings)

    def draw(self, rng: np.random.Generator, *, value_range: Interval) -> list[int]:
        """Draw one seed per channel for MONAI's own draw."""
        return [int(seed) for seed in rng.integers(2**32, size=self.in_channels)]

    def apply(self, array: np.ndarray, parameters: list[int], *, value_range: Interval) -> np.ndarray:
        """Send each channel through its curve; constant channels stay."""
        from monai.transforms import RandHistogramShift

        shift = RandHistogramShift(num_control_points=self.control_points, prob=1.0)
        result = array.copy()
        for channel, seed in enumerate(parameters):
            if np.ptp(array[channel]) > 0:
                shift.set_random_state(seed)
                result[channel] = np.asarray(shift(torch.from_numpy(np.ascontiguousarray(array[channel]))))
        return result
