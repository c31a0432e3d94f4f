"""The structure-preserving network (paper eqs. 7-9), whose output is added to ``x_t`` before each reverse step."""

from __future__ import annotations

import math

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import nn
from torch.nn import functional as F


class PixelBlock(nn.Module):
    """GroupNorm, SiLU, 1x1 convolution, GroupNorm scaled and shifted by the time, SiLU, 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, time_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(math.gcd(32, in_channels), in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1)
        self.norm2 = nn.GroupNorm(math.gcd(32, out_channels), out_channels)
        self.time = nn.Linear(time_dim, 2 * out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, h: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        h = self.norm2(self.conv1(F.silu(self.norm1(h))))
        scale, shift = self.time(F.silu(emb))[:, :, None, None].chunk(2, dim=1)
        return self.conv2(F.silu(h * (1 + scale) + shift))


class StructurePreservingNetwork(ModelMixin, ConfigMixin):
    """``SPN(x_in, t)``: 1x1 convolutions only, so each pixel's output depends on that pixel (and on
    image-wide statistics through GroupNorm).

    Args:
        in_channels: image channels C.
        hidden_channels: width of the outer and of the inner convolutions.
        time_dim: width of the time embedding.
        time: its time input: the ``"real"`` timestep, the ``"index"`` of the step (the reference code's way), or
            ``"none"``.
        zero_init: start the last convolution at zero, so that an untrained SPN adds nothing (the reference code's
            default initialization shifts ``x_t`` from the first step).
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        hidden_channels: tuple[int, int] = (32, 64),
        time_dim: int = 128,
        time: str = "real",
        zero_init: bool = True,
    ) -> None:
        super().__init__()
        narrow, wide = hidden_channels
        self.time_proj = Timesteps(128, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(128, time_dim)
        self.conv_in = nn.Conv2d(in_channels, narrow, 1)
        self.block1 = PixelBlock(narrow, wide, time_dim)
        self.block2 = PixelBlock(wide, narrow, time_dim)
        self.conv_out = nn.Conv2d(narrow, in_channels, 1)
        if zero_init:
            nn.init.zeros_(self.conv_out.weight)
            nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, x_in: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Clean images ``(B, C, H, W)`` in [-1, 1], times ``(B,)`` to an addition of the same shape."""
        if self.config.time == "none":
            t = torch.zeros_like(t)
        emb = self.time_embedding(self.time_proj(t).to(x_in.dtype))
        return self.conv_out(self.block2(self.block1(self.conv_in(x_in), emb), emb))
