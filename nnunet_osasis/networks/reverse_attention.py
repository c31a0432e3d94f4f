"""PraNet's refinement: look where the coarser map saw no foreground, and correct it there."""

from __future__ import annotations

import torch
from torch import nn

from nnunet_osasis.networks.partial_decoder import resize
from nnunet_osasis.networks.receptive_field import conv_norm


def reverse_attention(logits: torch.Tensor, exclusive: torch.Tensor) -> torch.Tensor:
    """``1 - P(foreground)`` of logits ``(B, K, H, W)`` as ``(B, 1, H, W)`` in [0, 1].

    ``exclusive`` is a bool tensor without dimensions. True: softmax classes, channel 0 is background. False: sigmoid
    regions, foreground is whatever any of them says. Both are computed, so that a compiled graph does not branch.
    """
    background = logits.softmax(dim=1)[:, :1]
    outside_all = torch.sigmoid(-logits.amax(dim=1, keepdim=True))
    return torch.where(exclusive, background, outside_all)


class ReverseAttentionBranch(nn.Module):
    """One correction, added to the coarser map (Chen et al., "Reverse Attention for Salient Object Detection", 2018).

    Args:
        in_channels: of the backbone stage. ``width``: of the branch. ``depth``: convolutions with ReLU in it.
        kernel: their side. ``head_kernel``: side of the last convolution, which makes the maps.
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
        """Features ``(B, in_channels, H, W)`` and a coarser (or global) map ``(B, K, h, w)`` to a finer map
        ``(B, K, H, W)``; all maps are logits."""
        coarser = resize(coarser, features)
        return coarser + self.seg_layers[0](self.layers(features * reverse_attention(coarser, exclusive)))
