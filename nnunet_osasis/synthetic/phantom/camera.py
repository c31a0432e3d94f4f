"""Two endoscopy cameras: from the light of a scene to the 8-bit picture each scanner would store."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

LUMA = np.array([0.2126, 0.7152, 0.0722])
"""Weights of red, green and blue in luma (Rec. 709)."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One scanner: light source, sensor and video processor, in the order in which they act.

    Lengths are fractions of the image width, so that a camera looks the same at every size. Nothing here moves
    a pixel, so one mask is right for every camera.

    Attributes:
        name: for tables and files.
        gains: color of the light source times white balance, per channel, in linear light.
        crosstalk: fraction of each channel that leaks into the other two (color filters overlap).
        exposure: factor on the light.
        vignette: fraction of light lost in the corners.
        blur: standard deviation of the lens and of the demosaicking.
        read_noise: standard deviation in linear light, constant.
        shot_noise: standard deviation in linear light at a signal of 1.
        shoulder: above this linear value highlights are compressed instead of clipped (1 clips).
        gamma: exponent of the display curve.
        contrast: strength of the S-shaped tone curve, 0 to 1.
        saturation: factor on the distance from gray.
        enhancement: amount of unsharp masking ("structure enhancement") on luma.
        enhancement_radius: its standard deviation.
    """

    name: str
    gains: tuple[float, float, float]
    crosstalk: float
    exposure: float
    vignette: float
    blur: float
    read_noise: float
    shot_noise: float
    shoulder: float
    gamma: float
    contrast: float
    saturation: float
    enhancement: float
    enhancement_radius: float

    def shoot(self, light: np.ndarray, *, noise_seed: int | None = None) -> np.ndarray:
        """Take a picture of ``light`` ``(H, W, 3)`` (linear, about 0 to 1, highlights above); uint8 ``(H, W, 3)``.

        Without ``noise_seed`` the sensor is free of noise: the picture is then the exact truth.
        """
        height, width = light.shape[:2]
        signal = light * self.exposure * self._vignette(height, width)[..., None]
        mix = (1 - 2 * self.crosstalk) * np.eye(3) + self.crosstalk * (np.ones((3, 3)) - np.eye(3))
        signal = signal @ (np.diag(self.gains) @ mix.T)
        signal = gaussian_filter(signal, (self.blur * width, self.blur * width, 0))
        if noise_seed is not None:
            rng = np.random.default_rng(noise_seed)
            deviation = np.sqrt(self.read_noise**2 + self.shot_noise**2 * np.clip(signal, 0, None))
            signal = signal + deviation * rng.standard_normal(signal.shape)
        return np.rint(self._develop(signal) * 255).astype(np.uint8)

    def _vignette(self, height: int, width: int) -> np.ndarray:
        rows = np.linspace(-1, 1, height)[:, None]
        columns = np.linspace(-1, 1, width)[None, :]
        return 1 - self.vignette * ((rows**2 + columns**2) / 2) ** 1.5

    def _develop(self, signal: np.ndarray) -> np.ndarray:
        """Convert the linear sensor signal to display values in [0, 1], as the video processor does."""
        signal = np.clip(signal, 0, None)
        if self.shoulder < 1:
            span = 1 - self.shoulder
            over = np.clip(signal - self.shoulder, 0, None)
            signal = np.where(signal > self.shoulder, self.shoulder + span * (1 - np.exp(-over / span)), signal)
        picture = np.clip(signal, 0, 1) ** self.gamma
        picture = (1 - self.contrast) * picture + self.contrast * picture**2 * (3 - 2 * picture)
        luma = picture @ LUMA
        picture = luma[..., None] + self.saturation * (picture - luma[..., None])
        detail = luma - gaussian_filter(luma, self.enhancement_radius * luma.shape[1])
        return np.clip(picture + self.enhancement * detail[..., None], 0, 1)


CAMERA_A = Camera(
    name="A",
    gains=(1.0, 0.98, 0.94),
    crosstalk=0.02,
    exposure=1.0,
    vignette=0.12,
    blur=0.003,
    read_noise=0.002,
    shot_noise=0.010,
    shoulder=0.8,
    gamma=1 / 2.2,
    contrast=0.25,
    saturation=1.05,
    enhancement=0.30,
    enhancement_radius=0.010,
)
"""The source camera: warm, crisp, saturated."""

CAMERA_B = Camera(
    name="B",
    gains=(0.72, 0.95, 1.25),
    crosstalk=0.15,
    exposure=1.1,
    vignette=0.35,
    blur=0.008,
    read_noise=0.004,
    shot_noise=0.016,
    shoulder=1.0,
    gamma=1 / 2.1,
    contrast=0.0,
    saturation=0.80,
    enhancement=0.55,
    enhancement_radius=0.05,
)
"""The target camera: a colder lamp, overlapping filters that wash colors out, darker corners, a softer lens, noise
and strong wide-radius enhancement. No single global color map can reproduce its vignette, enhancement, clipped
highlights and blur."""
