"""The grids of a transfer, and one network's way from images to noise and back along them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nnunet_osasis.diffusion.ddim import Inject, decode, encode, linear_alpha_bar, time_grid
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.compute import autocast

if TYPE_CHECKING:  # importing the networks imports diffusers, which a configuration does not need
    from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
    from nnunet_osasis.diffusion.unet import ConditionalUNet

PRECISIONS = ("auto", "fp32", "bf16")
"""Precisions of the networks; ``auto`` takes bf16 where the hardware has it."""

MAX_FACTOR = 100.0
"""Upper limit of powers and weights, which would overflow beyond it."""


@dataclass(frozen=True)
class SamplerConfig:
    """Grids and mixing of a transfer.

    >>> SamplerConfig(t0=30, encode_steps=3, decode_steps=3, grid_power=1).decode_grid()
    [0, 10, 20, 30]

    Attributes:
        t0: level that encoding ends at and decoding starts from.
        encode_steps: steps of the inversion.
        decode_steps: steps of the way back.
        grid_power: of both grids (2: quadratic, 1: linear).
        spn_weight: ``w`` in ``x_t + w * SPN(x_in, t)``.
        spn_steps: decoding steps that ``w`` was trained with. The addition is made at every step, so its sum grows with
            their number; ``w`` is scaled to keep the sum. None adds ``w`` at every step, as published.
        mix: whether the fine levels take the style's code: ``content`` (all levels the content's own) or ``style``.
        level_alignment: ``matched``, or ``official`` to start decoding one step below the encoded level without
            moving the image there, and to end with a step from the lowest noise, as the reference code does.
        order: of both paths; 1 is DDIM, 2 extrapolates the noise (``extrapolate_eps``): fewer steps are as near.
        precision: ``fp32``, ``bf16``, or ``auto`` (bf16 where the hardware has it), of the networks; their answers
            are added up in float32 either way.
    """

    t0: int = 300
    encode_steps: int = 20
    decode_steps: int = 20
    grid_power: float = 2.0
    spn_weight: float = 0.1
    mix: str = "content"
    level_alignment: str = "matched"
    order: int = 1
    precision: str = "fp32"
    spn_steps: int | None = None

    def __post_init__(self) -> None:
        whole = (self.t0, self.encode_steps, self.decode_steps)
        if not all(isinstance(value, int) and not isinstance(value, bool) for value in whole):
            raise OsasisError(
                "t0, encode_steps and decode_steps must be whole numbers", found=whole, remedy="Such as 300, 20 and 20."
            )
        if not 0 < self.t0 < 1000:
            raise OsasisError("t0 must lie between 1 and 999", found=self.t0, remedy="300 is the default.")
        if max(whole) > 1000:
            raise OsasisError(
                "There are 1000 levels, so no more steps", found=max(whole), remedy="20 steps are the default."
            )
        for name in ("grid_power", "spn_weight"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MAX_FACTOR:
                raise OsasisError(
                    f"{name} must be a number from 0 to {MAX_FACTOR:g}", found=value, remedy="Take the default."
                )
        if self.mix not in ("content", "style"):
            raise OsasisError("mix must be content or style", found=self.mix)
        if self.level_alignment not in ("matched", "official"):
            raise OsasisError("level_alignment must be matched or official", found=self.level_alignment)
        if isinstance(self.order, bool) or self.order not in (1, 2):
            raise OsasisError("order must be 1 or 2", found=self.order, remedy="1 is DDIM, 2 extrapolates.")
        if self.precision not in PRECISIONS:
            raise OsasisError("precision must be known", found=self.precision, remedy=f"Use one of {PRECISIONS}.")
        if self.spn_steps is not None and not (type(self.spn_steps) is int and 1 <= self.spn_steps <= 1000):
            raise OsasisError(
                "spn_steps must be None or a whole number up to 1000",
                found=self.spn_steps,
                remedy="Give the decoding steps of the adaptation.",
            )
        time_grid(self.t0, self.encode_steps, self.grid_power)
        time_grid(self.t0, self.decode_steps, self.grid_power)

    def encode_grid(self) -> list[int]:
        """Levels of the inversion, rising."""
        return time_grid(self.t0, self.encode_steps, self.grid_power)

    def decode_grid(self) -> list[int]:
        """Levels that decoding runs down, rising.

        ``official`` drops the topmost, so the image is taken for cleaner than it is, and adds level 1 for the reference
        code's last step, from its timestep 0 to the clean image: as many steps.

        >>> SamplerConfig(t0=500, decode_steps=5, grid_power=1, level_alignment="official").decode_grid()
        [0, 1, 100, 200, 300, 400]
        """
        grid = time_grid(self.t0, self.decode_steps, self.grid_power)
        if self.level_alignment == "official" and len(grid) > 2 and grid[1] > 1:
            return [0, 1, *grid[1:-1]]
        return grid


def _precision(config: SamplerConfig, images: torch.Tensor) -> AbstractContextManager:
    """The autocast of the networks; ``fp32`` leaves an enclosing autocast, such as a training's, as it is."""
    return nullcontext() if config.precision == "fp32" else autocast(config.precision, str(images.device))


def encode_images(
    unet: ConditionalUNet, images: torch.Tensor, code: torch.Tensor, config: SamplerConfig
) -> torch.Tensor:
    """DDIM inversion of ``(B, C, S, S)`` with ``unet`` and its code ``(B, z)`` to level t0 (eq. 5)."""
    alpha_bar = linear_alpha_bar().to(images.device)

    def eps(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with _precision(config, x):
            return unet(x, t, code).float()

    return encode(eps, images, alpha_bar, config.encode_grid(), order=config.order)


def spn_injection(
    spn: StructurePreservingNetwork, x_in: torch.Tensor, config: SamplerConfig, weight: float | None = None
) -> Inject:
    """``(x_t, t) -> w * SPN(x_in, t)``; with an index-timed SPN ``t`` becomes the position in the grid (eq. 7)."""
    grid = config.decode_grid()
    share = 1.0 if config.spn_steps is None else config.spn_steps / config.decode_steps
    strength = share * (config.spn_weight if weight is None else weight)

    def inject(_: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        time = t
        if spn.config.time == "index":
            time = torch.full_like(t, grid.index(int(t[0])) - 1)
        with _precision(config, x_in):
            return strength * spn(x_in, time).float()

    return inject


def decode_images(
    unet: ConditionalUNet,
    x_t: torch.Tensor,
    code: torch.Tensor,
    config: SamplerConfig,
    *,
    fine_code: torch.Tensor | None = None,
    inject: Inject | None = None,
) -> torch.Tensor:
    """Decode ``(B, C, S, S)`` from t0 with ``unet``; not clipped (eqs. 6, 8, 9)."""
    alpha_bar = linear_alpha_bar().to(x_t.device)

    def eps(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with _precision(config, x):
            return unet(x, t, code, fine_code).float()

    return decode(eps, x_t, alpha_bar, config.decode_grid(), inject=inject, order=config.order)
