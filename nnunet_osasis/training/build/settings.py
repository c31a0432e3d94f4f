"""The settings of one build, the checks that need no training, and what the stylizer's card records of them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.records import as_json
from nnunet_osasis.runtime.storage import sha256_of_array
from nnunet_osasis.stylizer.calibrator import CalibratorConfig
from nnunet_osasis.stylizer.names import STUDENT, needs_networks
from nnunet_osasis.training.adaptation.recipes import AdaptConfig
from nnunet_osasis.training.distil import DistilConfig
from nnunet_osasis.training.loop import HOW
from nnunet_osasis.training.presets import Preset

MAPS, NETWORKS = STAGES = ("maps", "networks")
"""Stages of a build; each one ends with a stylizer that can be used."""

MOST_DIFFERENCES = 6
"""Number of differing settings that a message names."""

FALLBACK = "combined"
"""Read-out of a stylizer whose own read-out waits for the networks."""


@dataclass(frozen=True)
class BuildConfig:
    """All settings of one build; equal settings, images and seed give equal bytes on a CPU.

    Attributes:
        preset_name: name of the preset, for the card.
        preset: network size and pretraining.
        adapt: one-shot adaptation.
        calibrator: training of the calibrator; 0 iterations leave it out.
        readout: default read-out of the finished stylizer.
        hold_back: weaken ``combined`` as far as its estimates disagree.
        detail: also carry over sharpness and noise.
        clip: open_clip weights as the style embedder; None takes the semantic encoder.
        distil: training of the one-pass student.
        device: where to train.
    """

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
    """Raise ``OsasisError`` for settings that would fail only after hours of training."""
    needs_calibrator = "calibrator" in (config.adapt.pair.maker, config.readout)
    if needs_calibrator and config.calibrator.iterations == 0:
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


VERSIONS = ("version", "torch", "diffusers", "python")
"""Entries of a card that say what made the stylizer; a build may go on under other versions."""

SECOND_STAGE = ("pretraining", "adaptation", "student", "style_embedder")
"""Entries of a card that the maps do not depend on; checkpoints of the networks have identities of their own."""


def build_card(
    config: BuildConfig,
    sources: torch.Tensor,
    references: Sequence[np.ndarray],
    *,
    lent: Sequence[str] = (),
    counterpart: torch.Tensor | None = None,
) -> dict:
    """Return what a stylizer's card records: data hashes, settings and versions; no times, no paths.

    Args:
        config: settings of the build.
        sources: source images ``(N, C, S, S)``.
        references: reference images ``(C, H, W)`` in native units.
        lent: parts (``pretraining``, ``calibrator``) that are taken from another stylizer.
        counterpart: the reference as the source shows it (``--style-source-image``).
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
        card["more_references_sha256"] = [sha256_of_array(reference) for reference in references[1:]]
    if counterpart is not None:
        card["style_source_sha256"] = sha256_of_array(counterpart.numpy())
    return card | dict.fromkeys(lent, "taken from another stylizer")


def flat(card: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a card's entries, nested ones by names with dots.

    >>> flat({"a": 1, "b": {"c": 2}})
    {'a': 1, 'b.c': 2}
    """
    entries: dict[str, Any] = {}
    for name, value in card.items():
        entries |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return entries


def differences(known: Mapping[str, Any], own: Mapping[str, Any], counts: Callable[[str], bool]) -> str:
    """Return in words how two flat cards differ in the entries that count; empty where they do not."""
    texts = []
    for name in sorted(known.keys() | own):
        if counts(name.split(".")[0]) and known.get(name) != own.get(name):
            hashes = name.endswith("sha256")
            texts.append(f"other {name}" if hashes else f"{name} {known.get(name)!r} there and {own.get(name)!r} now")
    return "; ".join(texts[:MOST_DIFFERENCES]) + ("; and more" if len(texts) > MOST_DIFFERENCES else "")


def one_pass_card(config: BuildConfig) -> dict | str:
    """Return the card's entry about one pass: how the student is trained, or why there is none."""
    if config.distil.teacher(config.readout) is not None:
        return as_json(config.distil)
    if needs_networks(config.readout):
        return "none: distilling was left out"
    return f"none needed: {config.readout} is a map, one pass by itself, exactly"
