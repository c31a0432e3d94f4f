"""Global intensity non-linear augmentation: a shallow random convolutional network, new for every image."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from nnunet_osasis.controls.base import check_whole
from nnunet_osasis.controls.random import Interval, RandomControl, check_interval

FLAT = 1e-6
"""Standard deviation below which a channel counts as constant and keeps its scale."""

SIZES = (1, 3)
"""Sides of the kernels in pixels, one drawn for every layer."""


@dataclass(frozen=True)
class GINParameters:
    """One drawn network.

    Attributes:
        kernels: per layer ``(out, in, k, k)``.
        shifts: per layer ``(out,)``.
        alpha: share of the network's answer in the result.
    """

    kernels: tuple[np.ndarray, ...]
    shifts: tuple[np.ndarray, ...]
    alpha: float


def draw_gin(
    rng: np.random.Generator, channels: int, *, layers: int = 4, width: int = 2, alpha: Interval = (0.0, 1.0)
) -> GINParameters:
    """Draw standard normal kernels of size 1 or 3 and shifts, from C to ``width`` channels and back to C."""
    widths = [channels, *[width] * (layers - 1), channels]
    kernels, shifts = [], []
    for inward, outward in pairwise(widths):
        size = int(rng.choice(SIZES))
        kernels.append(rng.standard_normal((outward, inward, size, size)))
        shifts.append(rng.standard_normal(outward))
    return GINParameters(tuple(kernels), tuple(shifts), float(rng.uniform(*alpha)))


def gin(image: torch.Tensor, parameters: GINParameters) -> torch.Tensor:
    """Compute ``alpha g(x) + (1 - alpha) x``, rescaled to the Frobenius norm of ``x`` (Ouyang et al. 2022).

    Args:
        image: ``(C, H, W)`` or ``(C, D, H, W)`` in any units. Its channels are brought to mean 0 and deviation 1
            first, as in the paper, and back afterwards; kernels lie in the plane of the last two axes.
        parameters: made by :func:`draw_gin` for C channels.

    Returns:
        The same shape, dtype and units, not clipped. Means and deviations taken over the whole ``image``.
    """
    axes = tuple(range(1, image.ndim))
    mean = image.mean(dim=axes, keepdim=True)
    deviation = image.std(dim=axes, keepdim=True, correction=0)
    deviation = torch.where(deviation > FLAT, deviation, torch.ones_like(deviation))
    x = (image - mean) / deviation
    slices = x.movedim(0, -3).reshape(-1, x.shape[0], *x.shape[-2:])  # (D, C, H, W)
    mixed = parameters.alpha * _network(slices, parameters) + (1 - parameters.alpha) * slices
    mixed = mixed * (torch.linalg.vector_norm(slices) / torch.linalg.vector_norm(mixed).clamp_min(FLAT))
    return mixed.reshape(x.movedim(0, -3).shape).movedim(-3, 0) * deviation + mean


def _network(x: torch.Tensor, parameters: GINParameters) -> torch.Tensor:
    for layer, (kernel, shift) in enumerate(zip(parameters.kernels, parameters.shifts, strict=True)):
        if layer > 0:
            x = F.leaky_relu(x)
        weight, bias = (torch.as_tensor(array, dtype=x.dtype, device=x.device) for array in (kernel, shift))
        x = F.conv2d(x, weight, bias, padding="same")
    return x


class GIN(RandomControl):
    """Changes intensities by a random network of 1x1 and 3x3 convolutions with leaky ReLU; shapes stay.

    Ouyang et al., Causality-inspired single-source domain generalization, TMI 2022. The energy of the
    image about its mean is kept (before clipping to the native range).

    Args:
        in_channels: number of image channels.
        layers: number of convolutions (the authors': 4).
        width: number of channels between them (the authors': 2).
        alpha: interval within [0, 1] that the blend is drawn from; 0 is the image, 1 the network's output alone.
        seed: as in :class:`RandomControl`.
        value_range: as in :class:`RandomControl`.

    Raises:
        OsasisError: a number out of range.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        layers: int = 4,
        width: int = 2,
        alpha: Interval = (0.0, 1.0),
        seed: int = 0,
        value_range: Interval | None = None,
    ) -> None:
        self.layers, self.width = check_whole("layers", layers, least=1), check_whole("width", width, least=1)
        self.alpha = check_interval("alpha", alpha, lowest=0, highest=1)
        settings = {"layers": self.layers, "width": self.width, "alpha": self.alpha}
        super().__init__(in_channels, seed=seed, value_range=value_range, settings=settings)

    def draw(self, rng: np.random.Generator, *, value_range: Interval) -> GINParameters:
        """Draw one network and one blend."""
        return draw_gin(rng, self.in_channels, layers=self.layers, width=self.width, alpha=self.alpha)

    def apply(self, array: np.ndarray, parameters: GINParameters, *, value_range: Interval) -> np.ndarray:
        """Call :func:`gin` on an array."""
        return gin(torch.from_numpy(np.ascontiguousarray(array)), parameters).numpy()
