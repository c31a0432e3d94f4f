"""The configuration of a trained stylizer, and the checks of a call's options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from nnunet_osasis.diffusion.sampler import SamplerConfig
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.stylizer.names import READOUTS
from nnunet_osasis.transfer import check_strength

DIRECTIONS = ("source_to_target", "target_to_source")
"""The two directions of a transfer; the first one is the default everywhere."""


@dataclass(frozen=True)
class StylizerConfig:
    """How a trained stylizer is used.

    >>> StylizerConfig(readout="moments", strength=0.5).intensity.kind
    'fixed'

    Attributes:
        readout: one of ``nnunet_osasis.stylizer.names.READOUTS``.
        strength: default of ``stylize``, in [0, 1].
        detail: also carry over sharpness and noise, where the reference differs clearly from the sources.
        sampler: grids, SPN weight and mixing of the two networks (read-outs that run them).
        intensity: how native units map onto [-1, 1].
    """

    readout: str = "combined"
    strength: float = 1.0
    detail: bool = False
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    intensity: IntensityRange = field(default_factory=IntensityRange)

    def __post_init__(self) -> None:
        if self.readout not in READOUTS:
            raise OsasisError("The read-out must be known", found=self.readout, remedy=f"Use one of {READOUTS}.")
        if not isinstance(self.detail, bool):
            raise OsasisError("detail must be true or false", found=self.detail, remedy="Say True or False.")
        if not (isinstance(self.sampler, SamplerConfig) and isinstance(self.intensity, IntensityRange)):
            raise OsasisError(
                "sampler and intensity must be configurations",
                found=type(self.sampler).__name__,
                remedy="Give a SamplerConfig and an IntensityRange.",
            )
        check_strength(self.strength)


def check_call(images: torch.Tensor, channels: int, strength: float | Sequence[float], direction: str) -> torch.Tensor:
    """Check the arguments of ``OSASISStylizer.stylize``.

    Args:
        images: ``(B, channels, H, W)``, finite.
        channels: image channels of the stylizer.
        strength: in [0, 1], one number or one per image.
        direction: one of ``DIRECTIONS``.

    Returns:
        The strength of each image, ``(B,)``.

    Raises:
        OsasisError: any argument that is otherwise.
    """
    if direction not in DIRECTIONS:
        raise OsasisError("direction must be known", found=direction, remedy=f"Use one of {DIRECTIONS}.")
    if images.ndim != 4 or images.shape[1] != channels:
        raise OsasisError(
            f"This stylizer takes images (B, {channels}, H, W)",
            found=tuple(images.shape),
            remedy="Add the batch axis, convert the channels, or use a stylizer made for such images.",
        )
    if images.is_complex() or images.dtype == torch.bool:
        raise OsasisError("Images must hold real numbers", found=images.dtype, remedy="Convert them to float32.")
    if not torch.isfinite(images).all():
        raise OsasisError("Images must be finite", found="NaN or infinity", remedy="Repair or leave them out.")
    if images.numel() and float(images.abs().max()) > 2:
        raise OsasisError(
            "Images must be in the units of stylize (range -1 to 1)",
            found=f"values from {float(images.min()):.4g} to {float(images.max()):.4g}",
            remedy="Use stylize_array, which takes native units.",
        )
    strengths = list(strength) if isinstance(strength, Sequence) else [strength] * len(images)
    if len(strengths) != len(images):
        found = f"{len(strengths)} for {len(images)} images"
        raise OsasisError("Every image needs a strength", found=found, remedy="Give one number, or one per image.")
    return torch.tensor([check_strength(value) for value in strengths])
