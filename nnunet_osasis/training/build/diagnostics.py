"""Measurements and pictures of a stylizer while it is made; none of them needs a known truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.images.grids import save_grid
from nnunet_osasis.images.slices import evenly_spaced
from nnunet_osasis.maps.agreement import Agreement
from nnunet_osasis.stylizer.calibrator import Calibrator, CalibratorConfig
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.training.calibrate import try_calibrator, warn_if_outlying
from nnunet_osasis.training.style_pair import StylePair, pair_quality

EXAMPLES = 5
"""Number of source images in a picture."""


def suitability(
    agreement: Agreement, calibrator: Calibrator | None, sources: torch.Tensor, config: CalibratorConfig, *, count: int
) -> dict[str, Any]:
    """Return how well the estimates of the references agree, and what the calibrator is worth on simulated ones.

    Warns when the estimates disagree more than those of simulated references do.

    Args:
        agreement: agreement of the estimates that make up ``combined``.
        calibrator: None leaves the simulated references out.
        sources: source images ``(N, C, S, S)`` in [-1, 1].
        config: how references are simulated.
        count: number of references.
    """
    simulated = None
    if calibrator is not None:
        simulation = try_calibrator(calibrator, sources, config)
        simulated = simulation.to_json()
        warn_if_outlying(agreement.disagreement, simulation, "The reference" if count == 1 else "A reference")
    return {"references": count, "agreement": agreement.to_json(), "simulated_references": simulated}


def pair_qualities(
    model: DiffusionAutoencoder, pairs: Sequence[StylePair], sources: torch.Tensor
) -> list[dict[str, float]]:
    """Return the quality of every style pair that shows one scene."""
    device = model.device
    return [
        pair_quality(model, pair.reference.to(device), pair.counterparts.to(device), sources).to_json()
        for pair in pairs
        if pair.aligned
    ]


def show_stylized(
    path: Path,
    stylizer: OSASISStylizer,
    sources: torch.Tensor,
    reference: torch.Tensor,
    style_a: torch.Tensor | None = None,
) -> None:
    """Save a grid of source images, their stylized versions and the reference.

    Args:
        path: PNG file.
        stylizer: with networks if ``style_a`` is given.
        sources: source images ``(N, C, S, S)`` in [-1, 1].
        reference: ``y`` ``(1, C, S, S)`` in [-1, 1].
        style_a: ``y_A``; adds the decoder's picture and ``y_A`` itself.
    """
    examples = sources[evenly_spaced(len(sources), EXAMPLES)]
    columns: list = [("source", examples), (f"stylized ({stylizer.config.readout})", stylizer.stylize(examples))]
    if style_a is not None:
        columns.append(("decoder's picture", stylizer.decode_style(examples)))
    columns.append(("reference", reference))
    if style_a is not None:
        columns.append(("reference as source", style_a))
    save_grid(path, columns, title="stylizer")
