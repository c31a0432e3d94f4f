"""Settings of the one-shot adaptation, and the two named sets of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from nnunet_osasis.diffusion.sampler import SamplerConfig
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.training.adaptation.losses import LossWeights, get_losses
from nnunet_osasis.training.loop import RECOMPUTE
from nnunet_osasis.training.style_pair import StylePairConfig

SAMPLER = SamplerConfig(encode_steps=10, decode_steps=10, order=2, spn_steps=10)
"""Sampler of 20 evaluations per image, as near to the limit of many steps as 40 of DDIM (benchmarks/speed)."""

OWN_STATISTICS = 3.0
"""Weight of the statistics term in the default recipe."""


@dataclass(frozen=True)
class AdaptConfig:
    """One-shot adaptation. Defaults are what held up at small scale; ``RECIPES["osasis"]`` is the official one.

    Attributes:
        losses: ``osasis`` or ``paper``.
        statistics: weight of our own statistics term; None takes ``OWN_STATISTICS`` with the losses ``osasis``, and 0
            with ``paper``, whose equations have no such term.
        iterations: each takes ``contents`` source images and one optimizer step per reverse step.
        contents: content images per iteration, of all processes together.
        sampler: step grids during training.
        pair: how the style pair is made.
        align_pair: use the reference recolored by the pair's color map as ``y_A`` (its structure is then the
            reference's own) instead of the sample itself.
        learning_rate: Adam's rate for ``D_B``.
        spn_learning_rate: Adam's rate for the SPN.
        decay: let both rates follow a cosine to 0.
        ema_decay: decay of the averaged weights; 0 makes them the last ones.
        select_every: iterations between two scores (see ``selection``) of the averaged weights, the best of which are
            kept; 0 keeps those of the last iteration.
        style_spn_weight: ``w`` on the style branch (content takes ``sampler.spn_weight``).
        spn_time: see ``StructurePreservingNetwork``.
        spn_zero_init: see ``StructurePreservingNetwork``.
        precision: ``auto``, ``fp32`` or ``bf16`` (autocast).
        seed: seed of all random numbers.
        checkpoint_every: iterations between two checkpoints.
        recompute: recompute activations in the backward pass to save memory: ``on``, ``off``, ``auto`` (from 256 px).
    """

    losses: str = "osasis"
    statistics: float | None = None
    iterations: int = 20
    contents: int = 3
    sampler: SamplerConfig = field(default_factory=lambda: SAMPLER)
    pair: StylePairConfig = field(default_factory=StylePairConfig)
    align_pair: bool = True
    learning_rate: float = 1e-4
    spn_learning_rate: float = 1e-4
    decay: bool = True
    ema_decay: float = 0.99
    select_every: int = 5
    style_spn_weight: float = 0.1
    spn_time: str = "real"
    spn_zero_init: bool = True
    precision: str = "auto"
    seed: int = 0
    checkpoint_every: int = 10
    recompute: str = "auto"

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.contents < 1:
            raise OsasisError("Adaptation needs at least one iteration and one content image", found=self.iterations)
        if self.select_every < 0:
            raise OsasisError(
                "select_every must be 0 or more",
                found=self.select_every,
                remedy="0 keeps the weights of the last iteration.",
            )
        if self.recompute not in RECOMPUTE:
            raise OsasisError("recompute must be auto, on or off", found=self.recompute, remedy="Leave it at auto.")
        get_losses(self.losses)

    def weights(self) -> LossWeights:
        """The weights of ``losses``, with that of the statistics term."""
        own = OWN_STATISTICS if self.losses == "osasis" else 0.0
        return replace(get_losses(self.losses), statistics=own if self.statistics is None else self.statistics)


RECIPES: dict[str, AdaptConfig] = {
    "default": AdaptConfig(),
    # the published configuration, as its code runs: linear grids, t0 = 500, and 10 optimizer steps per iteration
    "osasis": AdaptConfig(
        statistics=0.0,
        iterations=50,
        contents=8,
        sampler=SamplerConfig(
            t0=500, encode_steps=25, decode_steps=10, grid_power=1.0, mix="style", level_alignment="official"
        ),
        pair=StylePairConfig(maker="sdedit", t0=500, steps=25, grid_power=1.0, samples=1),
        align_pair=False,
        learning_rate=5e-6,
        decay=False,
        ema_decay=0.0,
        select_every=0,
        style_spn_weight=1.0,
        spn_time="index",
        spn_zero_init=False,
    ),
}


def get_recipe(name: str) -> AdaptConfig:
    """Look a recipe up. Raises ``OsasisError`` with the known names."""
    if name not in RECIPES:
        raise OsasisError("The adaptation recipe must be known", found=name, remedy=f"Use one of {', '.join(RECIPES)}.")
    return RECIPES[name]
