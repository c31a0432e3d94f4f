"""UNet++ (Zhou et al., "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", DLMIA 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import BasicUNetPlusPlus
from torch import nn

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.networks.padding import check_input, crop_to, pad_to_multiple

_LEVELS = 5
"""Number of resolutions."""

_MULTIPLE = 16
"""Number that sides are padded to multiples of: four halvings."""

_MIN_SIDE = 32
"""Size of the longest axis at least: instance norm needs more than one value at the lowest resolution."""


class _Heads(nn.Module):
    """The output layers, X 0,1's first; nnU-Net knows by the name what not to take from a model of other classes."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.seg_layers = nn.ModuleList(layers)


class UNetPlusPlus(nn.Module):
    """MONAI's ``BasicUNetPlusPlus`` for images of any size, with its four maps in nnU-Net's order.

    Images are ``(B, in_channels, *spatial)``, answers logits ``(B, out_channels, *spatial)``. With deep supervision a
    list of four, the nodes ``[X 0,4, X 0,3, X 0,2, X 0,1]`` of the paper, the deepest and best first; without, the
    first alone. ``deep_supervision`` may be set any time; the weights are the same either way.

    Args:
        in_channels: number of image channels.
        out_channels: number of maps.
        spatial_dims: 2 or 3.
        features: number of channels of the five levels, then of the last decoder node.
        deep_supervision: whether four maps come back.
        dropout: probability in [0, 1).

    Raises:
        OsasisError: another number of features or of dimensions, or images of another shape.
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
            raise OsasisError(
                "UNet++ works on images or volumes", found=f"spatial_dims={spatial_dims}", remedy="Use 2 or 3."
            )
        if len(features) != 6:
            raise OsasisError(
                "UNet++ takes six numbers of features, five levels and the last node",
                found=features,
                remedy="Such as (32, 64, 128, 256, 512, 32).",
            )
        self.in_channels, self.spatial_dims, self.deep_supervision = in_channels, spatial_dims, deep_supervision
        self.nested = BasicUNetPlusPlus(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=out_channels,
            features=tuple(features),
            deep_supervision=True,
            dropout=dropout,
        )
        self.heads = _Heads([getattr(self.nested, f"final_conv_0_{j}") for j in range(1, _LEVELS)])
        for j in range(1, _LEVELS):
            delattr(self.nested, f"final_conv_0_{j}")

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Map ``(B, in_channels, *spatial)`` to logits, see the class."""
        check_input(image, self.in_channels, self.spatial_dims)
        size = image.shape[2:]
        grown = pad_to_multiple(image, _MULTIPLE, minimum=_MIN_SIDE if max(size) <= _MULTIPLE else 1)
        row, heads = self._top_row(grown), self.heads.seg_layers
        if self.deep_supervision:
            return [crop_to(heads[j - 1](row[j]), size) for j in (4, 3, 2, 1)]
        best = crop_to(heads[-1](row[-1]), size)
        if self.training:
            # Heads without a gradient make DistributedDataParallel wait for one; this gives them zero.
            best = best + 0.0 * sum(p.sum() for head in heads[:-1] for p in head.parameters())
        return best

    def _top_row(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return the nodes ``X 0,0 ... X 0,4`` at full size: ``X i,j = H([X i,0 ... X i,j-1, up(X i+1,j-1)])``.

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
