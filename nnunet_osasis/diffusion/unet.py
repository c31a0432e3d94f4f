"""DiffAE's conditioning on diffusers' UNet: ``h <- (1 + z_s) * ((1 + t_s) * GN(h) + t_b)`` in every block.

diffusers adds a class embedding to the time embedding before one shared projection, which is another
function. Here the embedding is the concatenation ``[time, z_fine, z_coarse]`` and every block's projection
is replaced by one that returns the exact product as diffusers' (scale, shift) pair.
"""

from __future__ import annotations

import torch
from diffusers import UNet2DModel
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.nn import functional as F


class AdaGNProjection(nn.Module):
    """Maps ``SiLU([time, z_fine, z_coarse])`` to ``(scale, shift)`` with ``scale = (1+t_s)(1+z_s) - 1``,
    ``shift = t_b (1+z_s)``. ``fine`` tells which of the two codes this block listens to."""

    def __init__(self, time_dim: int, z_dim: int, channels: int) -> None:
        super().__init__()
        self.time_dim, self.z_dim, self.fine = time_dim, z_dim, False
        self.time = nn.Linear(time_dim, 2 * channels)
        self.z = nn.Linear(z_dim, channels)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """``(B, time_dim + 2 z_dim)`` to ``(B, 2 * channels)``."""
        time, z_fine, z_coarse = embedding.split([self.time_dim, self.z_dim, self.z_dim], dim=1)
        time_scale, time_shift = self.time(time).chunk(2, dim=1)
        gain = 1 + self.z(z_fine if self.fine else z_coarse)
        return torch.cat([(1 + time_scale) * gain - 1, time_shift * gain], dim=1)


class _TimeThenZeros(nn.Module):
    """Pads the time embedding on the right, so that adding the left-padded codes concatenates the two."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.width = inner, width

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        return F.pad(self.inner(sample), (0, self.width))


class ConditionalUNet(nn.Module):
    """diffusers' ``UNet2DModel`` with DiffAE's layout, zero initialization and exact AdaGN; predicts eps.

    Args:
        channels: image channels C.
        sample_size: side in pixels that the attention levels are chosen for.
        block_out_channels: width per level, finest first.
        layers_per_block: residual blocks per level.
        attention_sizes: feature-map sides with attention.
        time_dim: width of the time embedding.
        z_dim: length of the code.
        norm_groups: groups of the normalization.
        dropout: probability in the residual blocks.
        fine_levels: levels (0 is the finest) whose blocks take ``z_fine``; the others and the middle take ``z_coarse``.
    """

    def __init__(
        self,
        *,
        channels: int,
        sample_size: int,
        block_out_channels: tuple[int, ...],
        layers_per_block: int,
        attention_sizes: tuple[int, ...],
        time_dim: int,
        z_dim: int,
        norm_groups: int,
        dropout: float,
        fine_levels: tuple[int, ...],
    ) -> None:
        super().__init__()
        attention = [sample_size // 2**i in attention_sizes for i in range(len(block_out_channels))]
        self.time_dim, self.z_dim = time_dim, z_dim
        self.unet = UNet2DModel(
            sample_size=sample_size,
            in_channels=channels,
            out_channels=channels,
            time_embedding_dim=time_dim,
            down_block_types=tuple("AttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attention),
            up_block_types=tuple("AttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in reversed(attention)),
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            downsample_type="resnet",
            upsample_type="resnet",
            dropout=dropout,
            attention_head_dim=None,
            norm_num_groups=norm_groups,
            attn_norm_num_groups=norm_groups,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="identity",
        )
        self.unet.time_embedding = _TimeThenZeros(self.unet.time_embedding, 2 * z_dim)
        for block in self._residual_blocks():
            block.time_emb_proj = AdaGNProjection(time_dim, z_dim, block.out_channels)
            nn.init.zeros_(block.conv2.weight)
            nn.init.zeros_(block.conv2.bias)
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)
        self.set_fine_levels(fine_levels)

    def _residual_blocks(self) -> list[ResnetBlock2D]:
        return [module for module in self.unet.modules() if isinstance(module, ResnetBlock2D)]

    def set_fine_levels(self, levels: tuple[int, ...]) -> None:
        """Choose which levels of both sides listen to ``z_fine``."""
        for block in self._residual_blocks():
            block.time_emb_proj.fine = False
        up = list(reversed(self.unet.up_blocks))
        for level in levels:
            for side in (self.unet.down_blocks[level], up[level]):
                for module in side.modules():
                    if isinstance(module, AdaGNProjection):
                        module.fine = True

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, z_coarse: torch.Tensor, z_fine: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Noise in ``x``: ``(B, C, H, W)`` at timesteps ``t`` ``(B,)``, codes ``(B, z_dim)``; sides divisible by
        ``2 ** (levels - 1)``. Without ``z_fine`` every block takes ``z_coarse`` (plain DiffAE)."""
        codes = torch.cat([z_coarse if z_fine is None else z_fine, z_coarse], dim=1)
        labels = F.pad(codes, (self.time_dim, 0))
        return self.unet(x, t, class_labels=labels, return_dict=False)[0]
