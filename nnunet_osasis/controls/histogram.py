"""No style transfer, the first row of every table, and histogram matching to the one reference image."""

from __future__ import annotations

import numpy as np
from skimage.exposure import match_histograms

from nnunet_osasis.controls.base import Control, native_range
from nnunet_osasis.images.image import check_array
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_json


class Identity(Control):
    """Returns every image as it is.

    >>> bool((Identity(1).stylize_array(np.ones((1, 4, 4), dtype=np.uint8)) == 1).all())
    True
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels, value_range=None)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the name and the channel count."""
        return sha256_of_json({"control": "identity", "in_channels": self.in_channels})

    def _stylize_slice(self, image: np.ndarray) -> np.ndarray:
        return image


class HistogramMatching(Control):
    """Gives every channel of every slice the reference's distribution of values (``skimage.exposure``).

    Args:
        reference: the target-style image ``(C, H, W)`` or volume ``(C, D, H, W)`` in native units.
        value_range: native interval; None takes it from the reference (integers: their type's).

    Raises:
        OsasisError: the reference has another rank, NaN or infinity.
    """

    def __init__(self, reference: np.ndarray, *, value_range: tuple[float, float] | None = None) -> None:
        check_array(reference, name="the reference")
        super().__init__(reference.shape[0], value_range or native_range([reference]))
        # Only the values count, so that the same picture read as uint8 and as float32 is the same reference.
        self._reference = reference.reshape(reference.shape[0], -1, 1).astype(np.float64)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the reference's values and the native range."""
        return sha256_of_json(
            {"control": "histogram_matching", "reference": sha256_of_array(self._reference), "range": self.value_range}
        )

    def _stylize_slice(self, image: np.ndarray) -> np.ndarray:
        columns = image.reshape(image.shape[0], -1, 1)
        return match_histograms(columns, self._reference, channel_axis=0).reshape(image.shape)
