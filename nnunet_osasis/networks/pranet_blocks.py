"""PraNet's parts: the receptive field block of each stage, the partial decoder, and reverse attention.

The decoder combines the three deepest stages into one global map; reverse attention looks where the coarser map saw no
foreground, and corrects it there.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def resize(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Resize ``maps`` ``(B, C, h, w)`` to the height and width of ``like``, bilinear."""
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
        """Combine ``(B, channels, h, w)`` of strides 8, 16, 32 into the global map S_g, logits ``(B, K, h, w)``."""
        up_32 = resize(at_32, at_16)
        gated_16 = self.gate_16_by_32(up_32) * at_16
        gated_8 = self.gate_8_by_32(resize(up_32, at_8)) * self.gate_8_by_16(resize(at_16, at_8)) * at_8
        joined_16 = self.join_16(torch.cat([gated_16, self.lift_32(up_32)], dim=1))
        joined_8 = self.join_8(torch.cat([gated_8, self.lift_16(resize(joined_16, at_8))], dim=1))
        return self.seg_layers[0](self.smooth(joined_8))


def reverse_attention(logits: torch.Tensor, exclusive: torch.Tensor) -> torch.Tensor:
    """Return ``1 - P(foreground)`` of logits ``(B, K, H, W)`` as ``(B, 1, H, W)`` in [0, 1].

    ``exclusive`` is a bool tensor without dimensions. True: softmax classes, channel 0 is background. False: sigmoid
    regions, foreground is whatever any of them says. Both are computed, so that a compiled graph does not branch.
    """
    background = logits.softmax(dim=1)[:, :1]
    outside_all = torch.sigmoid(-logits.amax(dim=1, keepdim=True))
    return torch.where(exclusive, background, outside_all)


class ReverseAttentionBranch(nn.Module):
    """One correction, added to the coarser map (Chen et al., "Reverse Attention for Salient Object Detection", 2018).

    Args:
        in_channels: number of channels of the backbone stage.
        out_channels: number of maps.
        width: number of channels of the branch.
        depth: number of convolutions with ReLU in it.
        kernel: their side in pixels.
        head_kernel: side of the last convolution, which makes the maps.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, width: int, depth: int, kernel: int, head_kernel: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(in_channels, width, 1)]
        for _ in range(depth):
            layers += [conv_norm(width, width, kernel), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        # nnU-Net's name for what it does not take over from a model of other classes
        self.seg_layers = nn.ModuleList([nn.Conv2d(width, out_channels, head_kernel, padding=head_kernel // 2)])

    def forward(self, features: torch.Tensor, coarser: torch.Tensor, exclusive: torch.Tensor) -> torch.Tensor:
        """Refine a coarser (or global) map.

        Args:
            features: ``(B, in_channels, H, W)``.
            coarser: logits ``(B, K, h, w)``.
            exclusive: see :func:`reverse_attention`.

        Returns:
            logits ``(B, K, H, W)``.
        """
        coarser = resize(coarser, features)
        return coarser + self.seg_layers[0](self.layers(features * reverse_attention(coarser, exclusive)))


def conv_norm(
    in_channels: int, out_channels: int, kernel: int | tuple[int, int], *, dilation: int = 1
) -> nn.Sequential:
    """Make a convolution with batch norm and no activation: ``(B, in, H, W)`` to ``(B, out, H, W)``."""
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = dilation * (sides[0] // 2), dilation * (sides[1] // 2)
    conv = nn.Conv2d(in_channels, out_channels, sides, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class ReceptiveFieldBlock(nn.Module):
    """Four branches of growing kernel and dilation, fused, plus a shortcut; ReLU at the end only.

    After Liu et al., "Receptive Field Block Net" (ECCV 2018), in the modified form of Wu et al. (CVPR 2019) that
    PraNet uses.
    """

    def __init__(self, in_channels: int, out_channels: int = 32) -> None:
        super().__init__()
        branches = [conv_norm(in_channels, out_channels, 1)]
        for reach in (3, 5, 7):
            branches.append(
                nn.Sequential(
                    conv_norm(in_channels, out_channels, 1),
                    conv_norm(out_channels, out_channels, (1, reach)),
                    conv_norm(out_channels, out_channels, (reach, 1)),
                    conv_norm(out_channels, out_channels, 3, dilation=reach),
                )
            )
        self.branches = nn.ModuleList(branches)
        self.fuse = conv_norm(len(branches) * out_channels, out_channels, 3)
        self.shortcut = conv_norm(in_channels, out_channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``, non-negative."""
        seen = torch.cat([branch(features) for branch in self.branches], dim=1)
        return F.relu(self.fuse(seen) + self.shortcut(features))
