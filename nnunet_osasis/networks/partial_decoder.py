"""PraNet's first guess: the three deepest stages combined into one global map."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from nnunet_osasis.networks.receptive_field import conv_norm


def resize(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``maps`` ``(B, C, h, w)`` at the height and width of ``like``, bilinear."""
    return F.interpolate(maps, size=like.shape[2:], mode="bilinear", align_corners=False)


class ParallelPartialDecoder(nn.Module):
    """Deeper features gate the shallower ones by products, then join them by concatenation.

    The decoder of Wu et al., "Cascaded Partial Decoder" (CVPR 2019), with one map per output channel.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.gate_16_by_32 = conv_norm(channels, channels, 3)
        self.gate_8_by_16 = conv_norm(channels, channels, 3)
        self.gate_8_by_32 = conv_norm(channels, channels, 3)
        self.lift_32 = conv_norm(channels, channels, 3)
        self.join_16 = conv_norm(2 * channels, 2 * channels, 3)
        self.lift_16 = conv_norm(2 * channels, 2 * channels, 3)
        self.join_8 = conv_norm(3 * channels, 3 * channels, 3)
        self.smooth = conv_norm(3 * channels, 3 * channels, 3)
        # nnU-Net's name for what it does not take over from a model of other classes
        self.seg_layers = nn.ModuleList([nn.Conv2d(3 * channels, out_channels, 1)])

    def forward(self, at_8: torch.Tensor, at_16: torch.Tensor, at_32: torch.Tensor) -> torch.Tensor:
        """Three ``(B, channels, h, w)`` at strides 8, 16 and 32 to the global map S_g: logits
        ``(B, out_channels, h, w)`` at stride 8."""
        up_32 = resize(at_32, at_16)
        gated_16 = self.gate_16_by_32(up_32) * at_16
        gated_8 = self.gate_8_by_32(resize(up_32, at_8)) * self.gate_8_by_16(resize(at_16, at_8)) * at_8
        joined_16 = self.join_16(torch.cat([gated_16, self.lift_32(up_32)], dim=1))
        joined_8 = self.join_8(torch.cat([gated_8, self.lift_16(resize(joined_16, at_8))], dim=1))
        return self.seg_layers[0](self.smooth(joined_8))
