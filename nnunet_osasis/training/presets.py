"""Settings of pretraining, and the three network sizes with the training that suits them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.training.loop import RECOMPUTE

COMPILE = ("off", "inductor", "aot_eager", "eager")
"""Backends of ``torch.compile`` that pretraining accepts."""


@dataclass(frozen=True)
class PretrainConfig:
    """How the source diffusion autoencoder ``D_A`` is trained (eps-prediction MSE, uniform t, AdamW, EMA).

    Attributes:
        iterations: optimizer steps.
        batch_size: images per step, of all processes together.
        learning_rate: peak rate; it follows a cosine to zero.
        weight_decay: AdamW's weight decay.
        ema_decay: decay of the averaged weights that are kept, warmed up as ``(1 + i) / (10 + i)``.
        grad_clip: largest norm of the gradient.
        flip: random left-right flips.
        precision: ``auto``, ``fp32`` or ``bf16`` (autocast).
        seed: seed of weights and batches.
        checkpoint_every: iterations between two checkpoints.
        grid_every: iterations between two sample grids.
        recompute: recompute activations in the backward pass to save memory: ``on``, ``off``, ``auto`` (from 256 px).
        compile: backend of ``torch.compile``: ``off``, ``inductor``, ``aot_eager`` or ``eager``. It changes the order
            of sums, so results repeat bit for bit with the same backend only.
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
    """A network size with the training that suits it.

    Attributes:
        model: constructor arguments of ``DiffusionAutoencoder``.
        spn: constructor arguments of ``StructurePreservingNetwork``.
        pretrain: training settings.
        rough_time: how long the networks take with these settings, in words.
    """

    model: dict[str, Any]
    spn: dict[str, Any]
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    rough_time: str = "half an hour on two CPU cores"


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
        rough_time="hours on a GPU",
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
        rough_time="days on a GPU",
    ),
}


def get_preset(name: str) -> Preset:
    """Look a preset up. Raises ``OsasisError`` with the known names."""
    if name not in PRESETS:
        raise OsasisError("The preset must be known", found=name, remedy=f"Use one of {', '.join(PRESETS)}.")
    return PRESETS[name]
