"""The calibrator: a small network that estimates, from one reference image, how its camera or scanner shows things.

It is trained once per source set, on source images seen through random acquisitions (``synthetic.acquisition``), and
answers for any reference afterwards in milliseconds. It has to tell the scene from the acquisition:
is the picture red because the tissue is, or because the lamp is? Moment matching (Reinhard) always blames the lamp.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.field_of_view import own_view
from nnunet_osasis.maps.parametric import ParametricMap, feature_count
from nnunet_osasis.stylizer.weights import GROUPS, QUANTILES, description_size

MIN_PIXELS_IN_VIEW = 32
"""Number of pixels in view below which the whole picture counts."""


@dataclass(frozen=True)
class CalibratorConfig:
    """How a calibrator is trained.

    Attributes:
        family: of ``nnunet_osasis.synthetic.acquisition``; ``auto`` chooses by the number of channels.
        iterations: optimizer steps; 0 leaves the calibrator out.
        batch_size: references per step.
        strength: how far from the identity the acquisitions are drawn.
        crop: at most this share of a scene's sides is cut off at random, so that few scenes become many.
        learning_rate: peak of a one-cycle schedule (AdamW).
        weight_decay: of AdamW.
        pixels: number of pixels of other scenes that a map is judged on.
        inverse_weight: weight of the way back in the loss.
        simulations: number of simulated references of held-out scenes it is tried on.
        seed: of weights, scenes and acquisitions.
        checkpoint_every: steps between two checkpoints.
    """

    family: str = "auto"
    iterations: int = 600
    batch_size: int = 16
    strength: float = 1.0
    crop: float = 0.6
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    pixels: int = 400
    inverse_weight: float = 0.3
    simulations: int = 32
    seed: int = 0
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        if self.iterations < 0 or min(self.batch_size, self.pixels, self.simulations, self.checkpoint_every) < 1:
            raise OsasisError("A calibrator's counts must be at least 1 (iterations: 0)", found=self)
        if not (0 <= self.crop < 1 and self.strength > 0):
            raise OsasisError(
                "A calibrator needs 0 <= crop < 1 and strength > 0", found=f"{self.crop}, {self.strength}"
            )


def describe(images: torch.Tensor) -> torch.Tensor:
    """Statistics of the values in view: ``(B, C, S, S)`` in [-1, 1] to ``(B, K)``.

    Means, deviations, quantiles and covariances of the channels, and the mean color of six groups of pixels ordered by
    brightness (how color changes with light is what a tone curve bends).
    """
    rows = []
    for image, view in zip(images, own_view(images), strict=True):
        pixels = image[:, view[0]] if int(view.sum()) >= MIN_PIXELS_IN_VIEW else image.flatten(1)
        quantiles = torch.quantile(pixels, torch.tensor(QUANTILES).to(pixels), dim=1)
        first, second = torch.tril_indices(len(pixels), len(pixels))
        covariance = torch.cov(pixels).reshape(len(pixels), len(pixels))[first, second]
        order = pixels.mean(dim=0).argsort()
        groups = [pixels[:, part].mean(dim=1) for part in order.tensor_split(GROUPS)]
        rows.append(torch.cat([pixels.mean(1), pixels.std(1), quantiles.flatten(), 4 * covariance, *groups]))
    return torch.stack(rows)


class Calibrator(ModelMixin, ConfigMixin):
    """One reference to the coefficients of two maps: source to target, and back.

    Args:
        channels: of the images.
        terms: of the maps (``ParametricMap``).
        sample_size: side in pixels that it looks at.
        width: of the first convolution.
        hidden: width of the head.
        low: lower end of the source's values, per channel.
        high: upper end of the source's values, per channel.
    """

    @register_to_config
    def __init__(
        self,
        channels: int = 3,
        terms: tuple[str, ...] = ("quadratic", "radial"),
        sample_size: int = 64,
        width: int = 32,
        hidden: int = 256,
        low: tuple[float, ...] = (-1.0, -1.0, -1.0),
        high: tuple[float, ...] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.count = feature_count(channels, terms)
        widths = [channels, width, 2 * width, 4 * width, 4 * width]
        self.look = nn.Sequential(
            *(
                layer
                for a, b in pairwise(widths)
                for layer in (nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.SiLU())
            )
        )
        known = description_size(channels)
        self.register_buffer("mean", torch.zeros(known))
        self.register_buffer("deviation", torch.ones(known))
        last = nn.Linear(hidden, 2 * channels * self.count)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(
            nn.Linear(2 * widths[-1] + known, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last
        )

    def normalize_by(self, sources: torch.Tensor) -> None:
        """Take statistics relative to those of the source images ``(N, C, S, S)``."""
        known = describe(sources)
        self.mean.copy_(known.mean(dim=0))
        self.deviation.copy_(known.std(dim=0) + 0.02)

    def forward(self, references: torch.Tensor) -> torch.Tensor:
        """``(B, C, S, S)`` in [-1, 1] to coefficients ``(B, 2, C, F)``: source to target, target to source."""
        seen = self.look(references)
        known = ((describe(references) - self.mean) / self.deviation * 0.5).clamp(-5, 5)
        answer = self.head(torch.cat([seen.mean(dim=(2, 3)), seen.std(dim=(2, 3)), known], dim=1))
        return 0.3 * answer.view(len(references), 2, -1, self.count)

    @torch.no_grad()
    def maps(self, reference: torch.Tensor) -> tuple[ParametricMap, ParametricMap]:
        """The two maps one reference ``(1, C, S, S)`` stands for."""
        limits = (tuple(self.config.low), tuple(self.config.high))
        forth, back = self(reference.to(self.device)).cpu().double()[0]
        bounds = ((-1.0,) * len(limits[0]), (1.0,) * len(limits[0]))  # the way back starts from the target's values
        return (
            ParametricMap(_rows(forth), tuple(self.config.terms), *limits),
            ParametricMap(_rows(back), tuple(self.config.terms), *bounds),
        )


def _rows(coefficients: torch.Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in coefficients.tolist())
