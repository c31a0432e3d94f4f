"""How a trained stylizer is used: configuration and the checks of its options."""

from __future__ import annotations

from dataclasses import dataclass, field

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.intensity import IntensityRange
from nnunet_osasis.readout import READOUTS
from nnunet_osasis.sampler import SamplerConfig

DIRECTIONS = ("source_to_target", "target_to_source")


@dataclass(frozen=True)
class StylizerConfig:
    """How a trained stylizer is used.

    Attributes:
        readout: see ``nnunet_osasis.readout.READOUTS``. ``strength``: default of ``stylize``, in [0, 1].
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
        check_strength(self.strength)


def check_strength(strength: float) -> float:
    """Raise ``OsasisError`` unless ``strength`` lies in [0, 1]."""
    if not 0 <= strength <= 1:
        raise OsasisError("strength must lie in [0, 1]", found=strength, remedy="0 keeps the image, 1 is full style.")
    return strength
