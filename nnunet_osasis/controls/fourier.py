"""Fourier domain adaptation: the low-frequency amplitude of the one reference image."""

from __future__ import annotations

import numpy as np

from nnunet_osasis.controls.base import Control, check_range, native_range
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import check_array
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_json
from nnunet_osasis.transfer import is_number

AXES = (-2, -1)
"""Axes of the Fourier transform: the plane of a slice."""


class FourierDomainAdaptation(Control):
    """Replaces every slice's amplitude at low frequencies by the reference's and keeps its phase (FDA).

    Yang and Soatto, CVPR 2020, eq. (3). The window is a square of frequencies from ``-b`` to ``b`` cycles per image
    with ``b = floor(beta * min(H, W))``, as in the authors' code, but at least 1 so that small images get more than
    the reference's mean; ``beta = 0`` swaps the mean alone. Amplitudes are taken above the lower end of the native
    range, where means are positive (the swap keeps signs).

    A reference of another size counts as resized to the image by Fourier interpolation: cycles per image
    correspond, and amplitudes scale with the number of pixels. The window is made smaller where one of the two
    images has no such frequencies. Of a reference volume the mean amplitude over its slices is taken. Image and
    reference must have the same units, because frequencies above the window keep the image's own amplitude.

    Args:
        reference: the target-style image ``(C, H, W)`` or volume ``(C, D, H, W)`` in native units.
        beta: window size in [0, 0.5], a fraction of the shorter side. The paper uses 0.01 to 0.09; larger is more
            style and more of the reference's shading printed onto every image.
        value_range: native interval; None takes it from the reference (integers: their type's).

    Raises:
        OsasisError: the reference has another rank, NaN or infinity, or beta lies outside [0, 0.5].
    """

    def __init__(
        self, reference: np.ndarray, *, beta: float = 0.01, value_range: tuple[float, float] | None = None
    ) -> None:
        check_array(reference, name="the reference")
        if not is_number(beta) or not 0 <= beta <= 0.5:
            raise OsasisError("beta must lie in [0, 0.5]", found=beta, remedy="The paper uses 0.01 to 0.09.")
        self._range = check_range(value_range) or native_range([reference])
        super().__init__(reference.shape[0], self._range)
        self.beta = float(beta)
        values = reference.astype(np.float64)
        self._digest = sha256_of_array(values)
        amplitude = np.abs(np.fft.fft2(values - self._range[0], axes=AXES, norm="forward"))
        if amplitude.ndim == 4:
            amplitude = amplitude.mean(axis=1)
        self._amplitude = np.fft.fftshift(amplitude, axes=AXES)  # (C, H, W), per pixel, mean value in the middle

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the reference's values, the window and the native range."""
        return sha256_of_json({"control": "fda", "reference": self._digest, "beta": self.beta, "range": self._range})

    def window(self, height: int, width: int) -> int:
        """Return ``b``, the highest frequency swapped, in cycles per image, for images of this size."""
        radius = max(1, int(self.beta * min(height, width))) if self.beta > 0 else 0
        return min(radius, *((side - 1) // 2 for side in (height, width, *self._amplitude.shape[1:])))

    def _stylize_slice(self, image: np.ndarray) -> np.ndarray:
        b = self.window(*image.shape[1:])
        spectrum = np.fft.fftshift(np.fft.fft2(image - self._range[0], axes=AXES, norm="forward"), axes=AXES)
        low = spectrum[middle(spectrum, b)]
        low[...] = self._amplitude[middle(self._amplitude, b)] * np.exp(1j * np.angle(low))
        swapped = np.fft.ifft2(np.fft.ifftshift(spectrum, axes=AXES), axes=AXES, norm="forward")
        return swapped.real + self._range[0]


def middle(spectrum: np.ndarray, b: int) -> tuple[slice, ...]:
    """Return where a shifted spectrum ``(C, H, W)`` holds the frequencies from ``-b`` to ``b`` of both axes."""
    return (slice(None), *(slice(side // 2 - b, side // 2 + b + 1) for side in spectrum.shape[1:]))
