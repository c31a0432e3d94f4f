"""The three sizes, as data.

Settings of the one-shot adaptation, and the two named sets of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from nnunet_osasis.diffusion.sampler import SamplerConfig
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.training.adaptation.losses import LossWeights, get_losses
from nnunet_osasis.training.style_pair import StylePairConfig

RECOMPUTE = ("auto", "on", "off")

COMPILE = ("off", "inductor", "aot_eager", "eager")

HOW = ("checkpoint_every", "grid_every", "recompute", "compile")
"""Settings that change how a training runs and what it shows, not what it is: a checkpoint goes on under others."""


@dataclass(frozen=True)
class PretrainConfig:
    """How the source diffusion autoencoder ``D_A`` is trained (eps-prediction MSE, uniform t, AdamW, EMA).

    Attributes:
        iterations: optimiser steps. ``learning_rate`` follows a cosine to zero over them.
        ema_decay: of the weights that are kept; warmed up as ``(1 + i) / (10 + i)``.
        flip: random left-right flips. ``precision``: ``auto``, ``fp32`` or ``bf16`` (autocast).
        checkpoint_every, grid_every: iterations between checkpoints and sample grids.
        batch_size: of all processes together (see ``processes``).
        recompute: activations in the backward pass, for memory: ``on``, ``off`` or ``auto`` (from 256 px).
        compile: the backend of ``torch.compile`` for the network: ``off``, ``inductor``, ``aot_eager`` or ``eager``.
            The order of sums changes with it, so results repeat bit for bit with the same backend alone.
    """

    iterations: int = 2400
    batch_size: int = 16
    learning_rate: float = 4e-4
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    grad_clip: float = 1.0
    flip: bool = True
    precision: str = "auto"
    seed: int = 0
    checkpoint_every: int = 200
    grid_every: int = 400
    recompute: str = "auto"
    compile: str = "off"

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "checkpoint_every", "grid_every"):
            if getattr(self, name) < 1:
                raise OsasisError(f"{name} must be at least 1", found=getattr(self, name))
        if self.precision not in ("auto", "fp32", "bf16"):
            raise OsasisError("precision must be auto, fp32 or bf16", found=self.precision)
        if self.recompute not in RECOMPUTE:
            raise OsasisError("recompute must be auto, on or off", found=self.recompute, remedy="Leave it at auto.")
        if self.compile not in COMPILE:
            raise OsasisError(
                f"compile must be one of {', '.join(COMPILE)}", found=self.compile, remedy="Leave it off."
            )
        if not 0 < self.learning_rate < 10:
            raise OsasisError(
                "learning_rate must be above 0 and below 10",
                found=self.learning_rate,
                remedy="Presets use 1e-4 to 4e-4.",
            )
        if not 0 <= self.seed < 2**32:
            raise OsasisError(f"seed must be from 0 to {2**32 - 1}", found=self.seed, remedy="Choose such a number.")


@dataclass(frozen=True)
class Preset:
    """A network size with the training that suits it. ``model`` and ``spn`` are constructor arguments."""

    model: dict[str, Any]
    spn: dict[str, Any]
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)


PRESETS: dict[str, Preset] = {
    # about 4.5 M parameters: half an hour on two CPU cores
    "tiny": Preset(
        model={
            "sample_size": 64,
            "block_out_channels": (32, 64, 64, 128),
            "encoder_block_out_channels": (32, 32, 64, 64, 128),
            "layers_per_block": 1,
            "attention_sizes": (8,),
            "time_dim": 128,
            "z_dim": 128,
            "norm_groups": 16,
            "dropout": 0.0,
            "fine_levels": (0, 1),
        },
        spn={"hidden_channels": (32, 64), "time_dim": 128},
    ),
    "small": Preset(
        model={
            "sample_size": 128,
            "block_out_channels": (64, 64, 128, 192, 256),
            "encoder_block_out_channels": (64, 64, 128, 192, 256, 256),
            "layers_per_block": 2,
            "attention_sizes": (16,),
            "time_dim": 256,
            "z_dim": 256,
            "norm_groups": 32,
            "dropout": 0.1,
            "fine_levels": (0, 1, 2),
        },
        spn={"hidden_channels": (64, 128), "time_dim": 256},
        pretrain=PretrainConfig(
            iterations=40_000,
            batch_size=32,
            learning_rate=2e-4,
            ema_decay=0.9995,
            checkpoint_every=1000,
            grid_every=2000,
        ),
    ),
    # DiffAE's 256-px configuration (design of the official ffhq256_autoenc) and OSASIS's SPN
    "base": Preset(
        model={
            "sample_size": 256,
            "block_out_channels": (128, 128, 256, 256, 512, 512),
            "encoder_block_out_channels": (128, 128, 256, 256, 512, 512, 512),
            "layers_per_block": 2,
            "attention_sizes": (16,),
            "time_dim": 512,
            "z_dim": 512,
            "norm_groups": 32,
            "dropout": 0.1,
            "fine_levels": (0, 1, 2, 3),
        },
        spn={"hidden_channels": (128, 256), "time_dim": 512},
        pretrain=PretrainConfig(
            iterations=200_000,
            batch_size=64,
            learning_rate=1e-4,
            weight_decay=0.0,
            ema_decay=0.9999,
            checkpoint_every=2000,
            grid_every=5000,
        ),
    ),
}


def get_preset(name: str) -> Preset:
    """Look a preset up. Raises ``OsasisError`` naming the presets there are."""
    if name not in PRESETS:
        raise OsasisError("The preset must be known", found=name, remedy=f"Use one of {', '.join(PRESETS)}.")
    return PRESETS[name]


SAMPLER = SamplerConfig(encode_steps=10, decode_steps=10, order=2, spn_steps=10)
"""20 evaluations an image, as near to the limit of many steps as 40 of DDIM (benchmarks/speed, sampler)."""


@dataclass(frozen=True)
class AdaptConfig:
    """One-shot adaptation. Defaults are what held up at small scale; ``RECIPES["osasis"]`` is the official one.

    Attributes:
        losses: ``osasis`` or ``paper``. ``statistics``: extra weight of the statistics term.
        iterations: each takes ``contents`` real source images and one optimiser step per reverse step.
        sampler: grids of training; ``pair``: how the style pair is made.
        align_pair: use the reference recoloured by the pair's colour map as ``y_A`` (its structure then is the
            reference's own), not the sample itself.
        learning_rate, spn_learning_rate: of Adam on ``D_B`` and the SPN; ``decay`` lets both follow a cosine to 0.
        ema_decay: of the averaged weights; 0 makes them the last ones.
        select_every: iterations between the scores (see ``snapshots``) by which the averaged weights that are kept
            are chosen; 0 keeps the averaged weights of the last iteration.
        style_spn_weight: ``w`` on the style branch (content takes ``sampler.spn_weight``).
        contents: of all processes together. recompute: activations in the backward pass, for memory: ``on``, ``off``
            or ``auto`` (from 256 px).
        spn_time, spn_zero_init: see ``StructurePreservingNetwork``.
    """

    losses: str = "osasis"
    statistics: float = 3.0
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
        """The recipe's weights with the statistics term added."""
        return replace(get_losses(self.losses), statistics=self.statistics)


RECIPES: dict[str, AdaptConfig] = {
    "default": AdaptConfig(),
    # the published configuration, as its code runs (facts: linear grids 50/20, t0 = 500, one optimiser step per step)
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
    """Look a recipe up. Raises ``OsasisError`` naming those there are."""
    if name not in RECIPES:
        raise OsasisError("The adaptation recipe must be known", found=name, remedy=f"Use one of {', '.join(RECIPES)}.")
    return RECIPES[name]
