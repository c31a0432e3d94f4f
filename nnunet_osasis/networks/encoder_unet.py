"""A U-Net on an encoder of timm's: what a small study trains when it may start from ImageNet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import timm
import torch
from monai.networks.nets.flexible_unet import SegmentationHead, UNetDecoder
from torch import nn

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.networks.padding import check_input, crop_to, pad_to_multiple
from nnunet_osasis.networks.pranet import build_encoder

_STRIDES = [2, 4, 8, 16, 32]
"""Strides that an encoder must have: MONAI's decoder doubles the size at every level."""

_MIN_SIDE_PX = 64
"""Smallest padded side, two pixels at stride 32: batch norm needs more than one value even in a batch of one."""


class EncoderUNet(nn.Module):
    """timm's feature maps at strides 2 to 32 and MONAI's ``UNetDecoder`` with batch norm.

    Images are ``(B, in_channels, H, W)`` in about [0, 1], of any size; they are normalized in here as the encoder's
    weights were trained (mean of timm's constants for other than three channels). Answers are logits
    ``(B, out_channels, H, W)``. Weights start random; see
    :func:`nnunet_osasis.networks.imagenet.load_imagenet_weights`.

    Args:
        in_channels: number of image channels.
        out_channels: number of maps.
        backbone: a timm model with convolutional features at strides 2, 4, 8, 16 and 32.
        features: number of channels of the decoder, from stride 16 to the image.

    Raises:
        OsasisError: timm has no such model, it has other strides, or images of another shape.
    """

    encoder: Any  # timm's wrapper, which tells the channels and strides of its features
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 2,
        *,
        backbone: str = "tf_efficientnet_lite0",
        features: Sequence[int] = (96, 64, 48, 32, 16),
    ) -> None:
        super().__init__()
        self.in_channels, self.backbone = in_channels, backbone
        self.encoder = build_encoder(backbone, in_channels)
        strides, layout = self.encoder.feature_info.reduction(), getattr(self.encoder, "output_fmt", "NCHW")
        if strides != _STRIDES or str(getattr(layout, "value", layout)) != "NCHW":
            raise OsasisError(
                f"The encoder must give channels-first features at strides {', '.join(map(str, _STRIDES))}",
                found=f"strides {', '.join(map(str, strides))} of {backbone!r}",
                remedy="EfficientNets and ResNets do, such as tf_efficientnet_lite0 or resnet18.",
            )
        self.decoder = UNetDecoder(
            2, (in_channels, *self.encoder.feature_info.channels()), tuple(features),
            act=("relu", {"inplace": True}), norm="batch", dropout=0.0, bias=False, upsample="nontrainable",
            pre_conv="default", interp_mode="nearest", align_corners=None, is_pad=False,
        )  # fmt: skip
        self.head = SegmentationHead(2, features[-1], out_channels)
        config = timm.get_pretrained_cfg(backbone)
        for name, values in (("mean", config.mean), ("std", config.std)) if config else (("mean", (0,)), ("std", (1,))):
            values = values if in_channels == 3 else (math.fsum(values) / len(values),) * in_channels
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map ``(B, in_channels, H, W)`` to logits, see the class."""
        check_input(image, self.in_channels, 2)
        padded = pad_to_multiple((image - self.mean) / self.std, _STRIDES[-1], minimum=_MIN_SIDE_PX)
        features = [padded, *self.encoder(padded)]
        logits: torch.Tensor = self.head(self.decoder(features, len(features) - 2))
        return crop_to(logits, image.shape[2:])
