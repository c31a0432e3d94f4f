"""Is this reference one to trust? Judged against references whose truth is known: simulated ones."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nnunet_osasis.calibrate import simulate, split_scenes
from nnunet_osasis.maps.agreement import agreement
from nnunet_osasis.maps.base import PixelMap
from nnunet_osasis.maps.color import difference
from nnunet_osasis.maps.field_of_view import field_of_view
from nnunet_osasis.maps.moments import MomentMap, moments
from nnunet_osasis.maps.parametric import places
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.runtime.compute import generator_for
from nnunet_osasis.stylizer.calibrator import Calibrator, CalibratorConfig
from nnunet_osasis.synthetic.acquisition import family_for

logger = logging.getLogger(__name__)
OUTLYING = 0.95
"""Quantile of the simulated disagreements beyond which a reference counts as outlying."""
SCENES = 12


@dataclass(frozen=True)
class Simulation:
    """What the calibrator was worth on simulated references of held-out source scenes (mean differences).

    Attributes:
        references: how many. no_transfer, moments, calibrator, mean: distance to the truth without transfer, by pooled
            moments, by the calibrator, by the mean of the two.
        disagreement: between calibrator and moments, its ``OUTLYING`` quantile.
    """

    references: int
    no_transfer: float
    moments: float
    calibrator: float
    mean: float
    disagreement: float

    def to_json(self) -> dict[str, Any]:
        """For the stylizer's card."""
        return {name: round(float(value), 4) for name, value in asdict(self).items()}


@torch.no_grad()
def try_calibrator(calibrator: Calibrator, sources: torch.Tensor, config: CalibratorConfig) -> Simulation:
    """Try the calibrator on random acquisitions of source scenes that were kept out of its training.

    Args:
        sources: all source images ``(N, C, S, S)``; the last eighth was held out, the others are what is mapped.
    """
    side = calibrator.config.sample_size
    scenes, held = split_scenes(resize(sources, (side, side)).clamp(-1, 1))
    family = family_for(config.family, scenes.shape[1])
    shown = scenes[:: max(1, len(scenes) // SCENES)]
    where = places(side, side).flatten(1)[None]
    keep = field_of_view(shown)[:, 0].flatten(1)
    rows, apart, own = [], [], moments(scenes)
    for index in range(config.simulations):
        generator = generator_for(config.seed, index, stream=5)
        reference, parameters = simulate(held, family, config, generator, 1)
        many = {name: value.expand(len(shown), *value.shape[1:]) for name, value in parameters.items()}
        truth = family.show(shown.flatten(2), where, many)
        estimates: list[PixelMap] = [MomentMap(*own, *moments(reference)), calibrator.maps(reference)[0]]
        results = [one(shown).clamp(-1, 1).flatten(2) for one in estimates]
        results = [shown.flatten(2), *results, torch.stack(results).mean(dim=0)]
        rows.append([float(difference(one, truth)[keep].mean()) for one in results])
        apart.append(agreement(estimates, shown, field_of_view(shown)).disagreement)
    plain, moved, calibrated, both = torch.tensor(rows).mean(dim=0).tolist()
    limit = float(torch.quantile(torch.tensor(apart), OUTLYING))
    return Simulation(len(rows), plain, moved, calibrated, both, limit)


def warn_if_outlying(disagreement: float, simulation: Simulation, name: str) -> bool:
    """Say so when the estimates of a reference disagree more than those of 95 % of simulated ones; returns whether."""
    outlying = disagreement > simulation.disagreement
    if outlying:
        logger.warning(
            "%s looks unlike anything the source shows: two ways to read it differ by %.1f (95 %% of simulated "
            "references: below %.1f). Choose a more typical picture of the new site, or give several with --style.",
            name, disagreement, simulation.disagreement,
        )  # fmt: skip
    return outlying
