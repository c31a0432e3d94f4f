"""Which weights of the one-shot adaptation are kept: the ones that score best on the source images themselves.

One reference image is soon learned by heart, and past that point the decoder repaints texture. The score needs no
target image but the reference and no mask: how far the source's edges are still there, against how far its colors
still are from where the style pair's own affine color map would put them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.sampler import SamplerConfig, decode_images, encode_images, spn_injection
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.diffusion.unet import ConditionalUNet
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.structure import structure_agreement
from nnunet_osasis.images.slices import evenly_spaced
from nnunet_osasis.maps.field_of_view import field_of_view, find_frame, own_view
from nnunet_osasis.maps.parametric import fit_images
from nnunet_osasis.training.checkpoint import EMA, TensorStore

SCORED_IMAGES = 4
"""Number of source images that are decoded for a score."""

DIVERGED = (
    "Check the reference image, or delete training/adapt.safetensors in the output and go on with --resume and a lower "
    "--adapt-learning-rate."
)
"""Remedy for an adaptation that went astray; its checkpoint is of the old rate."""

LEAST_CHANGE = 2 / 255
"""Smallest style change, one gray level of 8 bits, that a style gap is measured against."""


@dataclass(frozen=True)
class Score:
    """How well decoded pictures keep structure and take style.

    Attributes:
        structure: 1 when every edge is kept.
        style_gap: 0 when the colors are reached, 1 when nothing has changed.
    """

    structure: float
    style_gap: float

    @property
    def total(self) -> float:
        """The number to maximize."""
        return self.structure - self.style_gap


@dataclass
class Snapshot:
    """Tensors by name, as ``Checkpoint`` stores them."""

    weights: dict[str, torch.Tensor]


def score_pictures(decoded: torch.Tensor, sources: torch.Tensor, expected: torch.Tensor, view: torch.Tensor) -> Score:
    """Score decoded pictures.

    Args:
        decoded: decoded images ``(B, C, H, W)`` in [-1, 1].
        sources: their sources, same shape.
        expected: the sources recolored by the pair's map, same shape.
        view: bool ``(B, 1, H, W)``; edges are compared inside it, where no gradient reaches the frame.
    """
    count = view.expand_as(sources).sum().clamp(min=1)
    left, whole = (((x - expected).abs() * view).sum() / count for x in (decoded, sources))
    gap = left.item() / max(whole.item(), LEAST_CHANGE)
    return Score(float(structure_agreement(decoded, sources, view).mean()), gap)


class Selection:
    """Scores averaged weights during one adaptation and remembers the best.

    Args:
        model: ``D_A``.
        sources: ``(N, C, S, S)`` in [-1, 1]; evenly spaced ones are decoded.
        style_a: ``y_A`` ``(1, C, S, S)``.
        style_b: ``y`` ``(1, C, S, S)``.
        sampler: step grids of training.
        averages: averaged weights of ``decoder`` and ``spn``, read at every score.
    """

    def __init__(
        self,
        model: DiffusionAutoencoder,
        sources: torch.Tensor,
        style_a: torch.Tensor,
        style_b: torch.Tensor,
        sampler: SamplerConfig,
        averages: Mapping[str, EMA],
    ) -> None:
        self.sampler, self.averages = sampler, averages
        chosen = evenly_spaced(len(sources), SCORED_IMAGES)
        self.images = sources[chosen].to(style_a)
        self.view = field_of_view(self.images, find_frame(self.images))
        pair_view = own_view(style_b.cpu())
        pair = fit_images(style_a.cpu(), style_b.cpu(), pair_view)
        self.expected = pair(self.images).clamp(-1, 1)
        with torch.no_grad():
            self.code = model.semantic_encoder(self.images)
            self.noise = encode_images(model.unet, self.images, self.code, sampler)
            self.fine_code = None
            if sampler.mix == "style":
                self.fine_code = model.semantic_encoder(style_b).expand(len(self.images), -1)
        # until a score is finite these are the weights before the first iteration
        self.best = {name: Snapshot({k: v.clone() for k, v in a.weights.items()}) for name, a in averages.items()}
        numbers = {"iteration": 0.0, "score": -np.inf, "structure": 0.0, "style_gap": 0.0}
        self.numbers = Snapshot({k: torch.tensor(v, dtype=torch.float64) for k, v in numbers.items()})

    def states(self) -> Mapping[str, TensorStore]:
        """Return what a checkpoint stores: the best score and its weights."""
        return {"best": self.numbers} | {f"best_{name}": snapshot for name, snapshot in self.best.items()}

    def selected(self) -> dict[str, float]:
        """Return the best so far: ``iteration``, ``score``, ``structure``, ``style_gap``.

        Raises ``OsasisError`` when no score was finite.
        """
        values = {name: value.item() for name, value in self.numbers.weights.items()}
        if not values["iteration"]:
            raise OsasisError(
                "The adapted decoder's pictures must be finite",
                found="no finite score in any iteration",
                remedy=DIVERGED,
            )
        return values | {"iteration": int(values["iteration"])}

    @torch.no_grad()
    def decode(self, decoder: ConditionalUNet, spn: StructurePreservingNetwork) -> torch.Tensor:
        """The fixed images as the averaged weights show them: ``(B, C, S, S)`` in [-1, 1].

        The two networks have the averages inside meanwhile, and their own weights again after.
        """
        with self.averages["decoder"].lent_to(decoder), self.averages["spn"].lent_to(spn):
            inject = spn_injection(spn, self.images, self.sampler)
            return decode_images(
                decoder, self.noise, self.code, self.sampler, fine_code=self.fine_code, inject=inject
            ).clamp(-1, 1)

    def consider(self, iteration: int, decoder: ConditionalUNet, spn: StructurePreservingNetwork) -> dict[str, float]:
        """Score the averages after ``iteration`` iterations, keep them if they are the best; returns what to log."""
        score = score_pictures(self.decode(decoder, spn), self.images, self.expected, self.view)
        values = {"score": score.total, "structure": score.structure, "style_gap": score.style_gap}
        # what is not finite is never better; of equal scores the earlier one stays
        if score.total > self.numbers.weights["score"].item():
            for name, value in (values | {"iteration": iteration}).items():
                self.numbers.weights[name].fill_(value)
            for name, snapshot in self.best.items():
                for key, value in self.averages[name].weights.items():
                    snapshot.weights[key].copy_(value)
        return values
