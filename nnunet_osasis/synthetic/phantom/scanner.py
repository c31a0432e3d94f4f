"""Two MR-like scanners that see the same drawn body differently."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.synthetic.phantom.anatomy import WEIGHTINGS, Anatomy, draw_anatomy


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """An acquisition model: ``gain * (signal ** gamma) * bias``, with Rician noise, in arbitrary units.

    Attributes:
        gain: units at full signal.
        gamma: exponent of the contrast curve.
        mix: share of the next weighting in each (timing is never the same on two scanners).
        bias: relative depth of the smooth shading across the image.
        noise: standard deviation relative to full signal.
    """

    gain: float
    gamma: float
    mix: float
    bias: float
    noise: float

    def acquire(self, anatomy: Anatomy, channels: int = 1, *, noise_seed: int | None = None) -> np.ndarray:
        """Acquire a volume ``(channels, D, H, W)`` float32; free of noise without ``noise_seed``.

        Raises ``OsasisError`` unless there are 1 to 4 channels.
        """
        if not 1 <= channels <= WEIGHTINGS:
            raise OsasisError(f"The phantom has 1 to {WEIGHTINGS} channels", found=channels, remedy="Ask for fewer.")
        seen = (1 - self.mix) * anatomy.signal + self.mix * np.roll(anatomy.signal, -1, axis=0)
        z, y, x = (np.linspace(-1, 1, n) for n in seen.shape[1:])
        shading = 1 + self.bias * (0.6 * x[None, None] - 0.4 * y[None, :, None] + 0.2 * z[:, None, None])
        clean = self.gain * seen[:channels] ** self.gamma * shading
        if noise_seed is not None:
            rng = np.random.default_rng([noise_seed, 7])
            real, imaginary = rng.normal(0, self.noise * self.gain, (2, *clean.shape))
            clean = np.sqrt((clean + real) ** 2 + imaginary**2)
        return clean.astype(np.float32)


SCANNER_A = Scanner(gain=900.0, gamma=1.0, mix=0.0, bias=0.05, noise=0.015)
"""The source scanner."""

SCANNER_B = Scanner(gain=2300.0, gamma=1.7, mix=0.2, bias=0.25, noise=0.02)
"""The target scanner: other units, more contrast, mixed weightings and strong shading."""


def acquire_pair(
    seed: int, channels: int = 1, *, noise: bool = True, **sampling: tuple
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Acquire one body on both scanners: ``(volume_a, volume_b, mask, spacing)``.

    Args:
        seed: of the body.
        channels: number of weightings; volumes are ``(channels, D, H, W)`` float32.
        noise: whether volumes have noise.
        sampling: ``shape`` and ``spacing`` of ``draw_anatomy``.

    >>> a, b, mask, spacing = acquire_pair(0, 2, shape=(6, 32, 32))
    >>> a.shape, b.shape, mask.shape, spacing
    ((2, 6, 32, 32), (2, 6, 32, 32), (6, 32, 32), (4.0, 1.0, 1.0))
    """
    anatomy = draw_anatomy(seed, **sampling)
    a, b = (
        scanner.acquire(anatomy, channels, noise_seed=2 * seed + i if noise else None)
        for i, scanner in enumerate((SCANNER_A, SCANNER_B))
    )
    return a, b, anatomy.mask, anatomy.spacing
