"""Gray pictures that are stored as RGB, as ultrasound and X-ray exports are: found, told, made one channel."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import numpy as np

from nnunet_osasis.images.image import LoadedImage, to_dtype

WEIGHTS = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in brightness (ITU-R BT.601, as Pillow's ``L``)."""

TINT = 12 / 255
"""Distance between channels, as a share of the range, up to which a pixel is gray; JPEG moves them that far."""

MOST_COLORED = 0.1
"""Largest share of colored pixels in a gray picture: marks of the device, and what JPEG spreads around them.

Endoscopy, fundus and skin pictures have 54 % at least."""

MOST_PIXELS = 2**20
"""Number of pixels per picture that are looked at, about."""

logger = logging.getLogger(__name__)


def is_gray(array: np.ndarray) -> bool:
    """Tell whether three channels ``(3, *spatial)`` show a gray picture, but for a few colored marks."""
    if len(array) != 3:
        return False
    step = max(1, int(np.sqrt(array[0].size / MOST_PIXELS)))
    pixels = array[..., ::step, ::step].astype(np.float64)
    top = {"B": 255.0, "H": 65535.0}.get(array.dtype.char, float(np.ptp(pixels)))
    return bool((np.ptp(pixels, axis=0) > TINT * top).mean() <= MOST_COLORED)


def to_gray(array: np.ndarray) -> np.ndarray:
    """Return the brightness ``(1, *spatial)`` of three channels, in their dtype; other arrays as they are."""
    if len(array) != 3:
        return array
    red, green, blue = (np.float64(weight) * channel for weight, channel in zip(WEIGHTS, array, strict=True))
    return to_dtype(red + green + blue, array.dtype)[None]


def as_gray(loaded: LoadedImage) -> LoadedImage:
    """Make one channel of an image; what its file says about three (a profile, axes) goes."""
    if len(loaded.array) != 3:
        return loaded
    stays = ("dpi", "orientation", "resolution", "resolutionunit", "bigtiff")
    kept = {key: value for key, value in loaded.kept.items() if key in stays}
    return replace(loaded, array=to_gray(loaded.array), kept=kept)


@dataclass
class ColorSurvey:
    """Counts, over the images of a set, which of those in three channels are gray.

    >>> survey = ColorSurvey()
    >>> survey.add("a", np.zeros((3, 8, 8), np.uint8))
    >>> "--gray" in survey.message
    True
    """

    gray: dict[str, bool] = field(default_factory=dict)

    def add(self, name: str, array: np.ndarray) -> None:
        """Look at an image ``(C, *spatial)``, once."""
        if len(array) == 3 and name not in self.gray:
            self.gray[name] = is_gray(array)

    @property
    def message(self) -> str:
        """What a person should know; empty for a set of color, or without three channels."""
        found = [name for name, gray in self.gray.items() if gray]
        if not found:
            return ""
        remedy = "Give --gray to make them one channel, in this command and those that follow."
        if len(found) == len(self.gray):
            return f"All {len(found)} images are gray, stored as RGB. {remedy}"
        some = f"{len(found)} of {len(self.gray)} images are gray, stored as RGB ({found[0]}), the others are in color"
        return f"{some}. {remedy}"

    def warn(self) -> None:
        """Log the message, if there is one."""
        if self.message:
            logger.warning("Warning: %s", self.message)
