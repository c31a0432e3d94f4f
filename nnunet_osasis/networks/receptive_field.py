"""PraNet's view of one backbone stage: convolutions that look far at several scales at once."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def conv_norm(
    in_channels: int, out_channels: int, kernel: int | tuple[int, int], *, dilation: int = 1
) -> nn.Sequential:
    """Convolution and batch norm, the size kept: ``(B, in, H, W)`` to ``(B, out, H, W)``; no activation."""
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
        """``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``, non-negative."""
        seen = torch.cat([branch(features) for branch in self.branches], dim=1)
        return F.relu(self.fuse(seen) + self.shortcut(features))
