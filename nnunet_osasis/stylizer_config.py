"""How a trained stylizer is used: configuration and the checks of its options."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real

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
        if not isinstance(self.detail, bool):
            raise OsasisError("detail must be true or false", found=self.detail)
        if not (isinstance(self.sampler, SamplerConfig) and isinstance(self.intensity, IntensityRange)):
            raise OsasisError("sampler and intensity must be configurations", found=type(self.sampler).__name__)
        check_strength(self.strength)


def is_number(value: object) -> bool:
    """Whether a value counts as a number here: numpy's do, truth values do not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_strength(strength: float) -> float:
    """Raise ``OsasisError`` unless ``strength`` is a number in [0, 1]."""
    if not is_number(strength) or not 0 <= strength <= 1:
        raise OsasisError("strength must lie in [0, 1]", found=strength, remedy="0 keeps the image, 1 is full style.")
    return float(strength)
