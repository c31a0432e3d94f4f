"""The settings of one stylizer, and whether they can be met."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from nnunet_osasis.adapt import AdaptConfig
from nnunet_osasis.calibrator import Calibrator, CalibratorConfig
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.presets import Preset
from nnunet_osasis.storage import sha256_of_array

if TYPE_CHECKING:
    from nnunet_osasis.stylizer import OSASISStylizer


@dataclass(frozen=True)
class BuildConfig:
    """All settings of one build; equal settings, images and seed give equal bytes on a CPU."""

    preset_name: str
    preset: Preset
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    calibrator: CalibratorConfig = field(default_factory=CalibratorConfig)
    readout: str = "combined"
    hold_back: bool = False
    detail: bool = False
    clip: str | None = None
    device: str = "cpu"


def check_possible(config: BuildConfig, *, references: int) -> None:
    """Raise ``OsasisError`` for settings that would fail after hours: before anything is trained."""
    wants = "calibrator" in (config.adapt.pair.maker, config.readout)
    if wants and config.calibrator.iterations == 0:
        raise OsasisError(
            "The pair maker and the read-out calibrator need a calibrator",
            found="--calibrator-iterations 0",
            remedy="Leave it above 0, or choose another --pair or --readout.",
        )
    if config.adapt.pair.maker == "file" and references > 1:
        raise OsasisError("--pair file takes one reference", found=f"{references} with --style")


def lent_calibrator(given: OSASISStylizer | None, sources: torch.Tensor) -> Calibrator | None:
    """Another stylizer's calibrator, if it was trained on these very images: it knows their scenes alone."""
    if given is None or given.calibrator is None:
        return None
    if given.card.get("sources_sha256") == sha256_of_array(sources.numpy()):
        return given.calibrator
    logging.getLogger(__name__).info("--from-stylizer was made on other images: the calibrator is trained anew.")
    return None
