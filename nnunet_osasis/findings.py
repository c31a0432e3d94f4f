"""What is measured and shown while a stylizer is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.fitted_maps import StylePair
from nnunet_osasis.images.grids import save_grid
from nnunet_osasis.images.slices import evenly_spaced
from nnunet_osasis.maps.agreement import Agreement
from nnunet_osasis.pair_quality import pair_quality
from nnunet_osasis.stylizer.calibrator import Calibrator, CalibratorConfig
from nnunet_osasis.suitability import try_calibrator, warn_if_outlying

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

EXAMPLES = 5
"""Source images that pictures show."""


def measure(
    model: DiffusionAutoencoder,
    pairs: Sequence[StylePair],
    agreed: Agreement,
    calibrator: Calibrator | None,
    sources: torch.Tensor,
    config: CalibratorConfig,
) -> dict[str, Any]:
    """Quality of the pairs, agreement of the estimates, and the calibrator's worth on simulated references.

    Says so when the estimates disagree more than those of simulated references do. Nothing here needs a truth.
    """
    device = model.device
    qualities = [
        pair_quality(model, pair.reference.to(device), pair.counterparts.to(device), sources).to_json()
        for pair in pairs
        if pair.aligned
    ]
    simulated = None
    if calibrator is not None:
        simulation = try_calibrator(calibrator, sources, config)
        simulated = simulation.to_json()
        warn_if_outlying(agreed.disagreement, simulation, "The reference" if len(pairs) == 1 else "A reference")
    return {
        "references": len(pairs),
        "agreement": agreed.to_json(),
        "pair_quality": qualities,
        "simulated_references": simulated,
    }


def show_stylized(
    path: Path, stylizer: OSASISStylizer, sources: torch.Tensor, reference: torch.Tensor, style_a: torch.Tensor
) -> None:
    """A grid of source images, their stylized versions and the pair ``(y, y_A)``."""
    examples = evenly_spaced(sources, EXAMPLES)
    columns: Sequence = [
        ("source", examples),
        (f"stylized ({stylizer.config.readout})", stylizer.stylize(examples)),
        ("decoder's picture", stylizer.decode_style(examples)),
        ("reference", reference),
        ("reference as source", style_a),
    ]
    save_grid(path, columns, title="stylizer")
