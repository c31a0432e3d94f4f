"""The settings of one stylizer, whether they can be met, and what its card says of them."""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import diffusers
import numpy as np
import torch

from nnunet_osasis.distil import DistilConfig
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.presets import HOW, Preset
from nnunet_osasis.recipes import AdaptConfig
from nnunet_osasis.runtime.records import as_json
from nnunet_osasis.runtime.storage import sha256_of_array
from nnunet_osasis.stylizer.calibrator import Calibrator, CalibratorConfig
from nnunet_osasis.stylizer.readouts import DECODED, STUDENT

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer


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
    distil: DistilConfig = field(default_factory=DistilConfig)
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
    if config.readout == STUDENT and config.distil.teacher(config.readout) is None:
        raise OsasisError(
            "The read-out student needs a read-out to be distilled",
            found="none",
            remedy="Add --distil local_affine, and leave out --no-distil.",
        )
    if config.adapt.pair.maker == "file" and references > 1:
        raise OsasisError("--pair file takes one reference", found=f"{references} with --style")


def build_card(
    config: BuildConfig, sources: torch.Tensor, references: Sequence[np.ndarray], *, lent: Sequence[str]
) -> dict:
    """What a stylizer's card records: data hashes, settings and versions; no times, no paths.

    ``lent`` names the parts (``pretraining``, ``calibrator``) that were taken from another stylizer.
    """
    from nnunet_osasis import __version__

    card = {
        "version": __version__,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "python": platform.python_version(),
        "preset": config.preset_name,
        "pretraining": {key: value for key, value in as_json(config.preset.pretrain).items() if key not in HOW},
        "adaptation": {key: value for key, value in as_json(config.adapt).items() if key not in HOW},
        "calibrator": as_json(config.calibrator),
        "student": one_pass_card(config),
        **{name: getattr(config, name) for name in ("hold_back", "detail", "readout")},
        "style_embedder": config.clip or "semantic encoder",
        "source_images": len(sources),
        "sources_sha256": sha256_of_array(sources.numpy()),
        "reference_sha256": sha256_of_array(references[0]),
    }
    if len(references) > 1:
        card["more_references_sha256"] = [sha256_of_array(one) for one in references[1:]]
    return card | {part: "taken from another stylizer" for part in lent}


def one_pass_card(config: BuildConfig) -> dict | str:
    """What the card says about one pass: how the student is trained, or that none is needed or wanted."""
    if config.distil.teacher(config.readout) is not None:
        return as_json(config.distil)
    if config.readout in DECODED:
        return "none: distilling was left out"
    return f"none needed: {config.readout} is a map, one pass by itself, exactly"


def lent_calibrator(given: OSASISStylizer | None, sources: torch.Tensor) -> Calibrator | None:
    """Another stylizer's calibrator, if it was trained on these very images: it knows their scenes alone."""
    if given is None or given.calibrator is None:
        return None
    if given.card.get("sources_sha256") == sha256_of_array(sources.numpy()):
        return given.calibrator
    logging.getLogger(__name__).info("--from-stylizer was made on other images: the calibrator is trained anew.")
    return None
