"""Training of the calibrator, and what it is worth on scenes it has not seen."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm import tqdm

from nnunet_osasis.acquisition import AcquisitionFamily, family_for
from nnunet_osasis.border import field_of_view
from nnunet_osasis.calibrator import Calibrator, CalibratorConfig
from nnunet_osasis.color_space import difference
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.local_affine import resize
from nnunet_osasis.parametric_map import features, places
from nnunet_osasis.presets import as_json
from nnunet_osasis.storage import sha256_of_array, sha256_of_json
from nnunet_osasis.training import Checkpoint, Interruptible, RunLog, generator_for

LARGEST = 64
"""Side that references are looked at: colours and shading need no more."""
FRAME = 0.16
"""Simulated frames are up to this much brighter than black (20 of 255 grey levels)."""
SCENES = 4
"""Other scenes that one reference's map is judged on."""


def split_scenes(sources: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Scenes for training, and the last eighth, held out: neighbouring files show the same patient, so one cut."""
    held = max(1, len(sources) // 8)
    return (sources, sources) if len(sources) < 4 else (sources[:-held], sources[-held:])


def random_crop(images: torch.Tensor, crop: float, generator: torch.Generator) -> torch.Tensor:
    """Each image cut to at least ``1 - crop`` of its sides, flipped both ways at random, at its old size."""
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

    def __init__(self, scenes: torch.Tensor) -> None:
        self.values = scenes.flatten(2)
        self.where = places(*scenes.shape[-2:]).flatten(1)
        self.inside = [torch.nonzero(view.flatten())[:, 0] for view in field_of_view(scenes)]

    def draw(self, rows: int, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """``(rows, C, count)`` and their places ``(rows, 3, count)``; each row mixes ``SCENES`` scenes."""
        values, where = [], []
        each = -(-count // SCENES)
        for _ in range(rows):
            chosen = torch.randint(len(self.values), (SCENES,), generator=generator).tolist()
            drawn = [self.inside[i][torch.randint(len(self.inside[i]), (each,), generator=generator)] for i in chosen]
            values.append(torch.cat([self.values[i][:, d] for i, d in zip(chosen, drawn, strict=True)], dim=1))
            where.append(torch.cat([self.where[:, d] for d in drawn], dim=1))
        return torch.stack(values)[..., :count], torch.stack(where)[..., :count]


def simulate(
    scenes: torch.Tensor, family: AcquisitionFamily, config: CalibratorConfig, generator: torch.Generator, count: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """``count`` references as random acquisitions would show scenes of the source, ``(count, C, S, S)``; parameters."""
    chosen = scenes[torch.randint(len(scenes), (count,), generator=generator)]
    chosen = random_crop(chosen, config.crop, generator)
    parameters = family.sample(count, scenes.shape[1], generator, config.strength)
    where = places(*chosen.shape[-2:]).flatten(1)[None]
    shown = family.show(chosen.flatten(2), where, parameters).view_as(chosen)
    shown = family.degrade(shown, parameters, generator)
    frame = FRAME * torch.rand(count, 1, 1, 1, generator=generator) - 1  # the processor draws it, not the lens
    return torch.where(field_of_view(chosen), shown, frame), parameters


def _apply(
    coefficients: torch.Tensor, values: torch.Tensor, where: torch.Tensor, terms: tuple[str, ...]
) -> torch.Tensor:
    return values + torch.einsum("bof,bfn->bon", coefficients, features(values, where, terms))


def train_calibrator(
    sources: torch.Tensor, config: CalibratorConfig, *, work: Path, device: str = "cpu", resume: bool = False
) -> Calibrator:
    """Train a calibrator on source images ``(N, C, S, S)`` in [-1, 1].

    Args:
        work: folder of ``calibrator.safetensors`` and ``calibrator.jsonl``; ``resume`` goes on to the same weights.

    Loss: mean ``color_space.difference`` between mapped and true pixels of other scenes, both ways.

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
    side = min(LARGEST, sources.shape[-1])
    scenes = resize(sources, (side, side)).clamp(-1, 1)
    family = family_for(config.family, scenes.shape[1])
    scenes, _ = split_scenes(scenes)
    terms = family.terms
    flat = scenes.movedim(1, 0).flatten(1)
    flat = flat[:, :: 1 + flat.shape[1] // 100_000]
    low, high = torch.quantile(flat, torch.tensor([0.001, 0.999]), dim=1).tolist()
    torch.manual_seed(config.seed)
    net = Calibrator(scenes.shape[1], terms, side, low=tuple(low), high=tuple(high))
    net.normalise_by(scenes)
    net.to(device).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    identity = {
        "stage": "calibrator",
        "config": {k: v for k, v in as_json(config).items() if k != "checkpoint_every"},
        "images": sha256_of_array(scenes.numpy()),
    }
    checkpoint = Checkpoint(work / "calibrator.safetensors", sha256_of_json(identity))
    states: tuple[dict, dict, dict] = ({"calibrator": net}, {}, {"adamw": optimizer})
    start, done = checkpoint.load(*states) if resume else (0, False)
    if done:
        return net.eval().requires_grad_(False)
    pool = _Pixels(scenes)
    log = RunLog(work / "calibrator.jsonl", start=start)
    bar = tqdm(total=config.iterations, initial=start, desc="calibrate", unit="it", dynamic_ncols=True)
    with Interruptible() as interrupted, closing(log), bar:
        for iteration in range(start, config.iterations):
            generator = generator_for(config.seed, iteration, stream=4)
            optimizer.param_groups[0]["lr"] = config.learning_rate * one_cycle(iteration, config.iterations)
            references, parameters = simulate(scenes, family, config, generator, config.batch_size)
            values, where = pool.draw(config.batch_size, config.pixels, generator)
            truth = family.show(values, where, parameters)
            values, where, truth = (v.to(device) for v in (values, where, truth))
            coefficients = net(references.to(device))
            forth = difference(_apply(coefficients[:, 0], values, where, terms), truth).mean()
            back = difference(_apply(coefficients[:, 1], truth, where, terms), values).mean()
            loss = forth + config.inverse_weight * back
            if not torch.isfinite(loss):
                raise OsasisError(
                    "The calibrator's loss must stay finite",
                    found=f"{loss.item()} in iteration {iteration + 1}",
                    remedy="Check the source images, or leave it out with --calibrator-iterations 0.",
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            bar.update()
            if (iteration + 1) % 10 == 0 or iteration + 1 == config.iterations:
                log.write(iteration + 1, loss=loss.item(), forth=forth.item(), back=back.item(), norm=norm.item())
                bar.set_postfix(difference=f"{forth.item():.1f}", refresh=False)
            last = iteration + 1 == config.iterations
            if last or interrupted() or (iteration + 1) % config.checkpoint_every == 0:
                checkpoint.save(iteration + 1, *states, done=last)
            if interrupted() and not last:
                raise KeyboardInterrupt
    return net.eval().requires_grad_(False)


def one_cycle(iteration: int, iterations: int, *, warm: float = 0.3) -> float:
    """Rate factor: a cosine up from 1/25 over the first ``warm`` share, a cosine down to nearly 0 after it."""
    position = (iteration + 1) / iterations
    if position < warm:
        return 1 / 25 + (1 - 1 / 25) * 0.5 * (1 - math.cos(math.pi * position / warm))
    return 1e-4 + (1 - 1e-4) * 0.5 * (1 + math.cos(math.pi * (position - warm) / (1 - warm)))
