"""UNet++ (Zhou et al., "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", DLMIA 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import BasicUNetPlusPlus
from torch import nn

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.networks.padding import crop_to, pad_to_multiple

_LEVELS = 5
_MULTIPLE = 16  # four halvings
_MINIMUM = 32  # two per axis at the bottom: instance norm needs more than one value


class UNetPlusPlus(nn.Module):
    """MONAI's ``BasicUNetPlusPlus`` for images of any size, with its four maps in nnU-Net's order.

    Images are ``(B, in_channels, *spatial)``, answers logits ``(B, out_channels, *spatial)``. With deep supervision a
    list of four, the nodes ``[X 0,4, X 0,3, X 0,2, X 0,1]`` of the paper, the deepest and best first; without, the
    first alone. ``deep_supervision`` may be set any time; the weights are the same either way.

    Args:
        spatial_dims: 2 or 3.
        features: channels of the five levels, then of the last decoder node.
        dropout: probability in [0, 1).

    Raises ``OsasisError`` for another number of features or of dimensions.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        *,
        spatial_dims: int = 2,
        features: Sequence[int] = (32, 64, 128, 256, 512, 32),
        deep_supervision: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise OsasisError("UNet++ works on images or volumes", found=f"spatial_dims={spatial_dims}")
        if len(features) != 6:
            raise OsasisError("UNet++ takes six numbers of features, five levels and the last node", found=features)
        self.deep_supervision = deep_supervision
        self.nested = BasicUNetPlusPlus(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=out_channels,
            features=tuple(features),
            deep_supervision=True,
            dropout=dropout,
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """``(B, in_channels, *spatial)`` to logits, see the class."""
        row = self._top_row(pad_to_multiple(image, _MULTIPLE, minimum=_MINIMUM))
        if not self.deep_supervision:
            return crop_to(self.nested.final_conv_0_4(row[4]), image.shape[2:])
        return [crop_to(getattr(self.nested, f"final_conv_0_{j}")(row[j]), image.shape[2:]) for j in (4, 3, 2, 1)]

    def _top_row(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The nodes ``X 0,0 ... X 0,4`` at full size: ``X i,j = H([X i,0 ... X i,j-1, up(X i+1,j-1)])``.

        MONAI's own forward gives the same, but torch.compile cannot trace the type check in it.
        """
        rows: list[list[torch.Tensor]] = []
        for i in range(_LEVELS):
            down = getattr(self.nested, f"conv_{i}_0")
            rows.append([down(rows[-1][0] if rows else image)])
        for j in range(1, _LEVELS):
            for i in range(_LEVELS - j):
                node = getattr(self.nested, f"upcat_{i}_{j}")
                below = node.upsample(rows[i + 1][j - 1])
                rows[i].append(node.convs(torch.cat([*rows[i], below], dim=1)))
        return rows[0]
