"""PraNet (Fan et al., "PraNet: Parallel Reverse Attention Network for Polyp Segmentation", MICCAI 2020)."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.networks.padding import check_input, crop_to, pad_to_multiple
from nnunet_osasis.networks.pranet_blocks import (
    ParallelPartialDecoder,
    ReceptiveFieldBlock,
    ReverseAttentionBranch,
    resize,
)

_STRIDES = (8, 16, 32)
"""Strides of the backbone's features that are used."""

_WIDTH = 32
"""Number of channels of the receptive field blocks."""

_MIN_SIDE_PX = 64
"""Smallest padded side, two pixels at stride 32: batch norm needs more than one value even in a batch of one."""


class PraNet(nn.Module):
    """A global map from the three deepest stages of a backbone, refined by reverse attention at strides 32, 16, 8.

    Images are ``(B, in_channels, H, W)`` of any size, normalized as the training wants; answers are logits
    ``(B, out_channels, H, W)``. With deep supervision a list of four, ``[lateral 2, lateral 3, lateral 4, global]``,
    the best first, all of the image's size; without, its first entry alone. ``deep_supervision`` may be set any time.

    Weights start random; see :func:`nnunet_osasis.networks.imagenet.load_imagenet_weights`.

    Args:
        in_channels: number of image channels.
        out_channels: number of maps.
        backbone: a timm model with convolutional features at strides 8, 16 and 32.
        deep_supervision: whether four maps come back.
        exclusive: whether the channels are softmax classes, channel 0 the background, or sigmoid regions. None means
            classes when there is more than one channel. Travels with the weights, see :meth:`set_exclusive`.

    Raises:
        OsasisError: a backbone that timm does not know or that lacks one of the strides, or images of another shape.
    """

    encoder: Any  # timm's wrapper, which tells the channels and strides of its features
    exclusive: torch.Tensor

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        *,
        backbone: str = "res2net50_26w_4s",
        deep_supervision: bool = True,
        exclusive: bool | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.backbone = in_channels, out_channels, backbone
        self.deep_supervision = deep_supervision
        self.encoder = build_encoder(backbone, in_channels)
        self.stages = _stages(self.encoder, backbone)
        at_8, at_16, at_32 = (self.encoder.feature_info.channels()[stage] for stage in self.stages)
        self.fields = nn.ModuleList(ReceptiveFieldBlock(channels, _WIDTH) for channels in (at_8, at_16, at_32))
        self.decoder = ParallelPartialDecoder(_WIDTH, out_channels)
        self.lateral_4 = ReverseAttentionBranch(at_32, out_channels, width=256, depth=3, kernel=5, head_kernel=1)
        self.lateral_3 = ReverseAttentionBranch(at_16, out_channels, width=64, depth=2, kernel=3, head_kernel=3)
        self.lateral_2 = ReverseAttentionBranch(at_8, out_channels, width=64, depth=2, kernel=3, head_kernel=3)
        # A buffer, so that whoever rebuilds the network from its weights alone (nnU-Net's predictor) gets it back.
        self.register_buffer("exclusive", torch.tensor(False))
        self.set_exclusive(out_channels > 1 if exclusive is None else exclusive)

    def set_exclusive(self, exclusive: bool) -> None:
        """Say whether the channels are softmax classes with background first (True) or sigmoid regions (False).

        Raises ``OsasisError`` for classes in a single channel: there is no background to tell them from.
        """
        if exclusive and self.out_channels < 2:
            raise OsasisError(
                "Exclusive classes need a background channel and one more",
                found="one output channel",
                remedy="Use out_channels=2 or more, or exclusive=False.",
            )
        self.exclusive.fill_(exclusive)

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Map ``(B, in_channels, H, W)`` to logits, see the class."""
        check_input(image, self.in_channels, 2)
        padded = pad_to_multiple(image, _STRIDES[-1], minimum=_MIN_SIDE_PX)
        features = self.encoder(padded)
        at_8, at_16, at_32 = (features[stage] for stage in self.stages)
        global_map = self.decoder(*(field(x) for field, x in zip(self.fields, (at_8, at_16, at_32), strict=True)))
        lateral_4 = self.lateral_4(at_32, global_map, self.exclusive)
        lateral_3 = self.lateral_3(at_16, lateral_4, self.exclusive)
        lateral_2 = self.lateral_2(at_8, lateral_3, self.exclusive)
        maps = [lateral_2, lateral_3, lateral_4, global_map] if self.deep_supervision else [lateral_2]
        full = [crop_to(resize(logits, padded), image.shape[2:]) for logits in maps]
        return full if self.deep_supervision else full[0]


def build_encoder(backbone: str, in_channels: int, **options: object) -> nn.Module:
    """Make timm's model with a list of feature maps ``(B, C_i, H / s_i, W / s_i)``, random by default.

    Raises ``OsasisError`` when timm has no such model or cannot give its features.
    """
    if not timm.is_model(backbone):  # also keeps timm from looking up "hf-hub:..." names on the network
        close = ", ".join(timm.list_models(f"{backbone.split('_')[0].split('.')[0]}*")[:5])
        raise OsasisError(
            "The backbone must be a model of the installed timm",
            found=repr(backbone),
            remedy=f"Names like it: {close}." if close else "timm.list_models() gives the names.",
        )
    try:
        return timm.create_model(backbone, features_only=True, in_chans=in_channels, **{"pretrained": False, **options})
    except (RuntimeError, AttributeError, TypeError, AssertionError) as error:
        raise OsasisError("The backbone must be able to give feature maps", found=f"{backbone!r}: {error}") from error


def _stages(encoder: Any, backbone: str) -> tuple[int, ...]:
    """Return the positions of the features at strides 8, 16 and 32; of several with one stride, the last."""
    strides = encoder.feature_info.reduction()
    channels_first = getattr(encoder, "output_fmt", None) in ("NCHW", None)
    if not channels_first or any(stride not in strides for stride in _STRIDES):
        raise OsasisError(
            "The backbone must give channels-first features at strides 8, 16 and 32",
            found=f"strides {', '.join(map(str, strides))} of {backbone!r}",
            remedy="Residual networks do, such as res2net50_26w_4s or resnet34.",
        )
    return tuple(len(strides) - 1 - strides[::-1].index(stride) for stride in _STRIDES)
