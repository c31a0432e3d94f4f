"""Train the calibrator on simulated references, and measure what it is worth on scenes it has not seen."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.agreement import agreement
from nnunet_osasis.maps.base import PixelMap
from nnunet_osasis.maps.color import difference
from nnunet_osasis.maps.field_of_view import Frame, field_of_view, find_frame
from nnunet_osasis.maps.moments import MomentMap, moments
from nnunet_osasis.maps.parametric import features, places
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.runtime.compute import generator_for
from nnunet_osasis.runtime.records import as_json
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_json
from nnunet_osasis.stylizer.calibrator import Calibrator, CalibratorConfig
from nnunet_osasis.synthetic.acquisition import AcquisitionFamily, family_for
from nnunet_osasis.training.checkpoint import TrainingState
from nnunet_osasis.training.loop import HOW, OneCycle, Values, fit

logger = logging.getLogger(__name__)

OUTLYING = 0.95
"""Quantile of the simulated disagreements beyond which a reference counts as outlying."""

SIMULATED_SCENES = 12
"""Number of source scenes that simulated references are tried on."""

MAX_SIDE_PX = 64
"""Largest side in pixels at which the calibrator sees a reference; colors and shading need no more."""

FRAME = 0.16
"""Largest brightness of a simulated frame above black (20 of 255 gray levels)."""

STREAM = 4
"""Random-stream id; every training uses a different one."""

SCENES = 4
"""Number of other scenes that one reference's map is judged on."""


def split_scenes(sources: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Split scenes into training and held-out ones, the last eighth: neighboring files show the same patient."""
    if len(sources) < 4:
        return sources, sources
    held = max(1, len(sources) // 8)
    return sources[:-held], sources[-held:]


def random_crop(images: torch.Tensor, crop: float, generator: torch.Generator) -> torch.Tensor:
    """Cut each image to at least ``1 - crop`` of its sides, flip it both ways at random, keep its size."""
    size, out = images.shape[-1], []
    for image in images:
        side = max(8, int(size * (1 - crop * torch.rand(1, generator=generator).item())))
        top, left = torch.randint(size - side + 1, (2,), generator=generator).tolist()
        part = image[None, :, top : top + side, left : left + side]
        axes = [axis for axis in (-2, -1) if torch.rand(1, generator=generator).item() < 0.5]
        out.append(F.interpolate(part, size=(size, size), mode="bilinear", align_corners=False).flip(axes))
    return torch.cat(out)


class _Pixels:
    """Draws pixels in view, with their places, from many scenes."""

    def __init__(self, scenes: torch.Tensor, frame: Frame | None) -> None:
        self.values = scenes.flatten(2)
        self.where = places(*scenes.shape[-2:]).flatten(1)
        self.inside = [torch.nonzero(view.flatten())[:, 0] for view in field_of_view(scenes, frame)]

    def draw(self, rows: int, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return values ``(rows, C, count)`` and places ``(rows, 3, count)``; each row mixes ``SCENES`` scenes."""
        values, where = [], []
        each = -(-count // SCENES)
        for _ in range(rows):
            chosen = torch.randint(len(self.values), (SCENES,), generator=generator).tolist()
            drawn = [self.inside[i][torch.randint(len(self.inside[i]), (each,), generator=generator)] for i in chosen]
            values.append(torch.cat([self.values[i][:, d] for i, d in zip(chosen, drawn, strict=True)], dim=1))
            where.append(torch.cat([self.where[:, d] for d in drawn], dim=1))
        return torch.stack(values)[..., :count], torch.stack(where)[..., :count]


def simulate(
    scenes: torch.Tensor,
    family: AcquisitionFamily,
    config: CalibratorConfig,
    generator: torch.Generator,
    count: int,
    frame: Frame | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Show ``count`` source scenes as random acquisitions would.

    Args:
        scenes: source images ``(N, C, S, S)`` in [-1, 1].
        family: of acquisitions.
        config: strength of the acquisitions and of the crops.
        generator: source of randomness.
        count: number of references.
        frame: of the scenes; the processor draws it, not the lens.

    Returns:
        ``(count, C, S, S)`` in [-1, 1], and the parameters of their acquisitions.
    """
    chosen = scenes[torch.randint(len(scenes), (count,), generator=generator)]
    chosen = random_crop(chosen, config.crop, generator)
    parameters = family.sample(count, scenes.shape[1], generator, config.strength)
    where = places(*chosen.shape[-2:]).flatten(1)[None]
    shown = family.show(chosen.flatten(2), where, parameters).view_as(chosen)
    shown = family.degrade(shown, parameters, generator)
    level = FRAME * torch.rand(count, 1, 1, 1, generator=generator) - 1
    return torch.where(field_of_view(chosen, frame), shown, level), parameters


def _apply(
    coefficients: torch.Tensor, values: torch.Tensor, where: torch.Tensor, terms: tuple[str, ...]
) -> torch.Tensor:
    return values + torch.einsum("bof,bfn->bon", coefficients, features(values, where, terms))


def train_calibrator(
    sources: torch.Tensor, config: CalibratorConfig, *, work: Path, device: str = "cpu", resume: bool = False
) -> Calibrator:
    """Train a calibrator; the loss is the mean color difference between mapped and true pixels of other scenes, both
    ways.

    Args:
        sources: source images ``(N, C, S, S)`` in [-1, 1].
        config: training settings.
        work: folder of ``calibrator.safetensors`` and ``calibrator.jsonl``.
        device: where to train.
        resume: continue from the checkpoint to the same weights.

    Raises:
        OsasisError: fewer than two images, or a loss that is not finite.
        KeyboardInterrupt: after the state has been saved.
    """
    if len(sources) < 2:
        raise OsasisError(
            "A calibrator needs at least 2 source images",
            found=len(sources),
            remedy="Add source images, or leave it out with --calibrator-iterations 0.",
        )
    side = min(MAX_SIDE_PX, sources.shape[-1])
    scenes = resize(sources, (side, side)).clamp(-1, 1)
    family = family_for(config.family, scenes.shape[1])
    scenes, _ = split_scenes(scenes)
    terms = family.terms
    values = scenes.movedim(1, 0).flatten(1)
    values = values[:, :: 1 + values.shape[1] // 100_000]
    low, high = torch.quantile(values, torch.tensor([0.001, 0.999]), dim=1).tolist()
    torch.manual_seed(config.seed)
    net = Calibrator(scenes.shape[1], terms, side, low=tuple(low), high=tuple(high))
    net.normalize_by(scenes)
    net.to(device).train()
    frame = find_frame(scenes)
    pixels = _Pixels(scenes, frame)
    training = OneCycle(
        net, learning_rate=config.learning_rate, weight_decay=config.weight_decay, iterations=config.iterations
    )

    def step(iteration: int) -> Values:
        generator = generator_for(config.seed, iteration, stream=STREAM)
        references, parameters = simulate(scenes, family, config, generator, config.batch_size, frame)
        values, where = pixels.draw(config.batch_size, config.pixels, generator)
        truth = family.show(values, where, parameters)
        values, where, truth = (tensor.to(device) for tensor in (values, where, truth))
        coefficients = net(references.to(device))
        forward = difference(_apply(coefficients[:, 0], values, where, terms), truth).mean()
        inverse = difference(_apply(coefficients[:, 1], truth, where, terms), values).mean()
        loss = forward + config.inverse_weight * inverse
        return training.step(iteration, {"loss": loss, "forward": forward, "inverse": inverse})

    identity = {
        "stage": "calibrator",
        "config": {key: value for key, value in as_json(config).items() if key not in HOW},
        "images": sha256_of_array(scenes.numpy()),
    }
    state = TrainingState(sha256_of_json(identity), {"calibrator": net}, optimizers={"adamw": training.optimizer})
    fit(
        "calibrator", step, state, iterations=config.iterations, work=work, resume=resume,
        save_every=config.checkpoint_every,
        remedy="Check the source images, or leave the calibrator out with --overwrite and --calibrator-iterations 0.",
    )  # fmt: skip
    return net.eval().requires_grad_(False)


@dataclass(frozen=True)
class Simulation:
    """What the calibrator was worth on simulated references of held-out source scenes (mean differences).

    Attributes:
        references: number of simulated references.
        no_transfer: color difference to the truth without transfer.
        moments: the same by pooled moments.
        calibrator: the same by the calibrator.
        mean: the same by the mean of moments and calibrator.
        disagreement: ``OUTLYING`` quantile of the disagreement between calibrator and moments.
    """

    references: int
    no_transfer: float
    moments: float
    calibrator: float
    mean: float
    disagreement: float

    def to_json(self) -> dict[str, Any]:
        """Return rounded values, for the stylizer's index."""
        return {name: round(float(value), 4) for name, value in asdict(self).items()}


@torch.no_grad()
def try_calibrator(calibrator: Calibrator, sources: torch.Tensor, config: CalibratorConfig) -> Simulation:
    """Try the calibrator on random acquisitions of source scenes that were kept out of its training.

    Args:
        calibrator: a trained calibrator.
        sources: all source images ``(N, C, S, S)``; the held-out eighth is simulated, the others are mapped.
        config: how references are simulated.
    """
    side = calibrator.config.sample_size
    scenes, held = split_scenes(resize(sources, (side, side)).clamp(-1, 1))
    family = family_for(config.family, scenes.shape[1])
    shown = scenes[:: max(1, len(scenes) // SIMULATED_SCENES)]
    where = places(side, side).flatten(1)[None]
    frame = find_frame(scenes)
    view = field_of_view(shown, frame)
    keep = view[:, 0].flatten(1)
    rows, apart, own = [], [], moments(scenes)
    for index in range(config.simulations):
        generator = generator_for(config.seed, index, stream=5)
        reference, parameters = simulate(held, family, config, generator, 1, frame)
        many = {name: value.expand(len(shown), *value.shape[1:]) for name, value in parameters.items()}
        truth = family.show(shown.flatten(2), where, many)
        estimates: list[PixelMap] = [MomentMap(*own, *moments(reference)), calibrator.maps(reference)[0]]
        results = [one(shown).clamp(-1, 1).flatten(2) for one in estimates]
        results = [shown.flatten(2), *results, torch.stack(results).mean(dim=0)]
        rows.append([float(difference(one, truth)[keep].mean()) for one in results])
        apart.append(agreement(estimates, shown, view).disagreement)
    plain, moved, calibrated, both = torch.tensor(rows).mean(dim=0).tolist()
    limit = float(torch.quantile(torch.tensor(apart), OUTLYING))
    return Simulation(len(rows), plain, moved, calibrated, both, limit)


def warn_if_outlying(disagreement: float, simulation: Simulation, name: str) -> bool:
    """Warn when the estimates of a reference disagree more than those of 95 % of simulated ones; returns whether."""
    outlying = disagreement > simulation.disagreement
    if outlying:
        logger.warning(
            "%s looks unlike anything the source shows: two ways to read it differ by %.1f (95 %% of simulated "
            "references: below %.1f). Choose a more typical picture of the new site, or give several with --style.",
            name, disagreement, simulation.disagreement,
        )  # fmt: skip
    return outlying
