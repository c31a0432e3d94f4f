"""The diffusion autoencoder (DiffAE, Preechakul et al., CVPR 2022): semantic encoder and conditional UNet."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from torch import nn
from torch.nn import functional as F

from nnunet_osasis.diffusion.unet import ConditionalUNet
from nnunet_osasis.errors import OsasisError


class EncoderBlock(nn.Module):
    """DiffAE's encoder block: ``skip(x) + conv(SiLU(GN(x)))``, a single convolution, optionally pooled by 2.

    Its official weights only fit this form: without conditioning DiffAE's residual block has no second half.
    """

    def __init__(self, in_channels: int, out_channels: int, *, groups: int, down: bool = False) -> None:
        super().__init__()
        self.down = down
        self.norm = nn.GroupNorm(groups, in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.silu(self.norm(x))
        if self.down:
            x, h = F.avg_pool2d(x, 2), F.avg_pool2d(h, 2)
        return self.skip(x) + self.conv(h)


class SemanticEncoder(nn.Module):
    """``Enc``: images ``(B, C, H, W)`` in [-1, 1] to codes ``z_sem`` ``(B, z_dim)`` (paper eq. 4)."""

    def __init__(
        self,
        *,
        channels: int,
        sample_size: int,
        block_out_channels: tuple[int, ...],
        layers_per_block: int,
        attention_sizes: tuple[int, ...],
        z_dim: int,
        norm_groups: int,
    ) -> None:
        super().__init__()

        def attention(width: int) -> Attention:
            return Attention(
                width,
                heads=1,
                dim_head=width,
                norm_num_groups=norm_groups,
                residual_connection=True,
                bias=True,
                _from_deprecated_attn_block=True,
            )

        width = block_out_channels[0]
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)
        self.levels = nn.ModuleList()
        for level, out in enumerate(block_out_channels):
            blocks: list[nn.Module] = []
            for _ in range(layers_per_block):
                blocks.append(EncoderBlock(width, out, groups=norm_groups))
                width = out
                if sample_size // 2**level in attention_sizes:
                    blocks.append(attention(width))
            if level < len(block_out_channels) - 1:
                blocks.append(EncoderBlock(width, width, groups=norm_groups, down=True))
            self.levels.append(nn.Sequential(*blocks))
        self.middle = nn.Sequential(
            EncoderBlock(width, width, groups=norm_groups),
            attention(width),
            EncoderBlock(width, width, groups=norm_groups),
        )
        self.norm_out = nn.GroupNorm(norm_groups, width)
        self.conv_out = nn.Conv2d(width, z_dim, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)[0]

    def features(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """``z_sem`` and the feature map after each level, finest first (the offline style embedder reads them)."""
        h = self.conv_in(x)
        maps = []
        for level in self.levels:
            h = level(h)
            maps.append(h)
        h = F.silu(self.norm_out(self.middle(h)))
        return self.conv_out(h.mean(dim=(2, 3), keepdim=True)).flatten(1), maps


MAX_SIDE_PX = 2048
"""Largest side in pixels that the networks work at."""

MAX_LEVELS = 10
"""Largest number of levels of a network."""

MAX_LAYERS = 8
"""Largest number of residual blocks per level."""

MAX_MIDDLE_PX = 64
"""Largest side of the smallest feature map: attention there takes memory with the fourth power of it."""


def _check_middle(
    sample_size: int, widths: tuple[int, ...], encoder_widths: tuple[int, ...], layers_per_block: int
) -> None:
    """Raise ``OsasisError`` for sizes that no machine could run, before anything is built."""
    levels = min(len(widths), len(encoder_widths))
    if (
        not 1 <= levels <= max(len(widths), len(encoder_widths)) <= MAX_LEVELS
        or not 1 <= layers_per_block <= MAX_LAYERS
    ):
        raise OsasisError(
            f"The networks have 1 to {MAX_LEVELS} levels of 1 to {MAX_LAYERS} layers",
            found=f"{len(widths)}, {len(encoder_widths)} levels of {layers_per_block}",
            remedy="Take the numbers of a preset.",
        )
    if not 1 <= sample_size <= MAX_SIDE_PX or sample_size >> (levels - 1) > MAX_MIDDLE_PX:
        raise OsasisError(
            f"The networks work at {MAX_SIDE_PX} px at most, and at {MAX_MIDDLE_PX} px at their lowest level",
            found=f"{sample_size} px on {levels} levels",
            remedy="Take the numbers of a preset.",
        )


class DiffusionAutoencoder(ModelMixin, ConfigMixin):
    """``Enc`` and an eps-predicting UNet conditioned on ``z_sem`` by DiffAE's exact AdaGN.

    ``save_pretrained``/``from_pretrained`` are diffusers' (``config.json`` + safetensors).

    Args:
        in_channels: image channels C.
        sample_size: side in pixels it is trained at; other sides must be divisible by ``2 ** levels``.
        block_out_channels: widths per level of the UNet, finest first.
        encoder_block_out_channels: widths per level of the encoder; DiffAE gives it one level more than the UNet.
        layers_per_block: residual blocks per level.
        attention_sizes: feature-map sides with self-attention (the middle always has it).
        time_dim: width of the time embedding.
        z_dim: length of the semantic code.
        norm_groups: groups of the normalization.
        dropout: probability in the residual blocks of the UNet.
        fine_levels: UNet levels that take the style's code when codes are mixed.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        sample_size: int = 64,
        block_out_channels: tuple[int, ...] = (32, 32, 64, 128),
        encoder_block_out_channels: tuple[int, ...] = (32, 32, 64, 64, 128),
        layers_per_block: int = 1,
        attention_sizes: tuple[int, ...] = (8,),
        time_dim: int = 128,
        z_dim: int = 128,
        norm_groups: int = 16,
        dropout: float = 0.0,
        fine_levels: tuple[int, ...] = (0, 1),
    ) -> None:
        super().__init__()
        _check_middle(sample_size, block_out_channels, encoder_block_out_channels, layers_per_block)
        self.semantic_encoder = SemanticEncoder(
            channels=in_channels,
            sample_size=sample_size,
            block_out_channels=tuple(encoder_block_out_channels),
            layers_per_block=layers_per_block,
            attention_sizes=tuple(attention_sizes),
            z_dim=z_dim,
            norm_groups=norm_groups,
        )
        self.unet = self.make_unet()

    def make_unet(self) -> ConditionalUNet:
        """A freshly initialized decoder of this configuration (``D_B`` starts as a copy of ``unet``)."""
        config = self.config
        return ConditionalUNet(
            channels=config.in_channels,
            sample_size=config.sample_size,
            block_out_channels=tuple(config.block_out_channels),
            layers_per_block=config.layers_per_block,
            attention_sizes=tuple(config.attention_sizes),
            time_dim=config.time_dim,
            z_dim=config.z_dim,
            norm_groups=config.norm_groups,
            dropout=config.dropout,
            fine_levels=tuple(config.fine_levels),
        )

    def forward(self, x: torch.Tensor, t: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        """eps predicted for ``x`` at timesteps ``t``, conditioned on the code of the clean image ``x0``."""
        return self.unet(x, t, self.semantic_encoder(x0))
