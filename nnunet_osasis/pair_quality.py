"""How good a style pair is, judged without knowing the truth."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.ddim import add_noise, linear_alpha_bar
from nnunet_osasis.gate.structure import structure_agreement
from nnunet_osasis.maps.color import difference
from nnunet_osasis.maps.field_of_view import field_of_view
from nnunet_osasis.runtime.compute import generator_for

LEVELS = (50, 150, 300)
"""Noise levels the likelihood is read at: where ``D_A`` judges colours and textures, not layouts."""
KNOWN = 32
TIE = 1e-4
"""Errors nearer than this, relatively, are equal: their last bits depend on how images are batched."""


@dataclass(frozen=True)
class PairQuality:
    """Truth-free scores of ``y_A``.

    Attributes:
        structure: correlation of gradient magnitudes between ``y_A`` and ``y``; 1 is the same structure.
        source_likelihood: share of real source images that ``D_A`` predicts worse than ``y_A`` (0: stranger than all).
        sample_spread: mean difference between the samples of ``y_A`` and their mean (``color_space`` units); 0 for one.
    """

    structure: float
    source_likelihood: float
    sample_spread: float

    def to_json(self) -> dict[str, float]:
        """For the stylizer's index."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


@torch.no_grad()
def noise_error(model: DiffusionAutoencoder, images: torch.Tensor) -> torch.Tensor:
    """``D_A``'s error of the predicted noise, mean over ``LEVELS``, the same noise for every image: ``(B,)``."""
    alpha_bar = linear_alpha_bar().to(images.device)
    noise = torch.randn(images[:1].shape, generator=generator_for(0, 0, stream=6)).to(images.device)
    total = torch.zeros(len(images), device=images.device)
    for level in LEVELS:
        t = torch.full((len(images),), level, device=images.device)
        many = noise.expand_as(images)
        seen = model(add_noise(images, many, alpha_bar[level]), t, images)
        total += (seen.float() - many).square().mean(dim=(1, 2, 3))
    return total / len(LEVELS)


@torch.no_grad()
def pair_quality(
    model: DiffusionAutoencoder, reference: torch.Tensor, counterparts: torch.Tensor, sources: torch.Tensor
) -> PairQuality:
    """Score ``y_A`` ``(K, C, S, S)`` of a reference ``(1, C, S, S)`` against source images ``(N, C, S, S)``."""
    mean = counterparts.mean(dim=0, keepdim=True)
    chosen = sources[:: max(1, len(sources) // KNOWN)].to(mean.device)
    known = torch.cat([noise_error(model, part) for part in chosen.split(8)])
    own = noise_error(model, counterparts).mean()
    view = field_of_view(reference)[:, 0].flatten(1).expand(len(counterparts), -1)
    apart = difference(counterparts.flatten(2), mean.flatten(2).expand(len(counterparts), -1, -1))
    return PairQuality(
        structure=float(structure_agreement(mean, reference, field_of_view(reference))),
        source_likelihood=float((known > own * (1 + TIE)).float().mean()),
        sample_spread=float(apart[view].mean()) if len(counterparts) > 1 else 0.0,
    )
