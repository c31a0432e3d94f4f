"""Distillation: the teacher restyles source images once, and the student learns to do the same in one pass.

How well a student imitates its teacher, on source images it has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.structure import structure_agreement
from nnunet_osasis.images.slices import evenly_spaced
from nnunet_osasis.maps.color import perceptual
from nnunet_osasis.maps.field_of_view import field_of_view
from nnunet_osasis.maps.local_affine import fit_local_affine
from nnunet_osasis.maps.resize import resample, resize
from nnunet_osasis.runtime.records import as_json
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_json
from nnunet_osasis.stylizer.names import NETWORK_READOUTS
from nnunet_osasis.stylizer.networks import weights_digest
from nnunet_osasis.stylizer.student import LARGEST, LocalAffineStudent, Student, apply_field
from nnunet_osasis.training.calibrate import random_crop, split_scenes
from nnunet_osasis.training.checkpoint import Checkpoint
from nnunet_osasis.training.loop import Interruptible, train_short

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

STREAM = 9
"""Of the random numbers: other trainings have their own."""

BATCH = 8
"""Images the teacher restyles at once."""

SAVE_EVERY = 8
"""Batches of the teacher between two checkpoints."""


@dataclass(frozen=True)
class DistilConfig:
    """How a student is trained.

    Attributes:
        readout: the teacher, one of those that run the diffusion networks; None takes the stylizer's own read-out, and
            leaves the student out where that is a map, which is one pass by itself.
        iterations: optimiser steps; 0 leaves the student out. ``batch_size`` pairs a step.
        images: source images the teacher restyles at most, evenly_spaced spaced. The last eighth of them is held out.
        crop: at most this share of a pair's sides is cut off at random. learning_rate: peak of a one-cycle schedule.
        slope_weight: of the distance to the teacher's local slopes, which say what becomes of detail that the teacher's
            size does not show. width: of the student's first layer.
    """

    readout: str | None = None
    iterations: int = 1200
    batch_size: int = 8
    images: int = 400
    crop: float = 0.3
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    slope_weight: float = 0.1
    width: int = 16
    seed: int = 0
    checkpoint_every: int = 200

    def __post_init__(self) -> None:
        if self.readout is not None and self.readout not in NETWORK_READOUTS:
            raise OsasisError(
                "Only a read-out that runs the diffusion networks has a student",
                found=self.readout,
                remedy=f"Distil one of {', '.join(NETWORK_READOUTS)}; any other read-out is one pass by itself.",
            )
        if self.iterations < 0 or min(self.batch_size, self.images, self.checkpoint_every) < 1:
            raise OsasisError(
                "A student's counts must be at least 1 (iterations: 0)", found=self, remedy="Choose larger ones."
            )
        if self.width < 8 or self.width % 8 or not (0 <= self.crop < 1 and self.slope_weight >= 0):
            raise OsasisError(
                "A student needs a width that 8 divides, 0 <= crop < 1 and slope_weight >= 0",
                found=f"{self.width}, {self.crop}, {self.slope_weight}",
                remedy="The defaults are 16, 0.3 and 0.1.",
            )

    def teacher(self, readout: str) -> str | None:
        """The read-out to distil for a stylizer with ``readout``; None where there is nothing to train."""
        wanted = self.readout or (readout if readout in NETWORK_READOUTS else None)
        return wanted if self.iterations else None


class _Restyled:
    """The teacher's pictures so far, in the form a checkpoint stores."""

    def __init__(self, like: torch.Tensor) -> None:
        self.weights = {"teacher": torch.zeros_like(like)}


def teacher_pairs(
    stylizer: OSASISStylizer, sources: torch.Tensor, teacher: str, *, work: Path, resume: bool = False
) -> torch.Tensor:
    """``sources`` ``(N, C, S, S)`` in [-1, 1] restyled at full strength by the read-out ``teacher``, once.

    What is done is kept in ``work``, and ``resume`` goes on with it. Raises ``KeyboardInterrupt`` after saving.
    """
    # not the maps, which play no part here and whose last bits depend on the number of threads
    identity = {
        "stage": "distil-pairs",
        "weights": [weights_digest(network) for network in (stylizer.autoencoder, stylizer.decoder, stylizer.spn)],
        "reference": sha256_of_array(stylizer.reference),
        "settings": [as_json(stylizer.config.sampler), as_json(stylizer.config.intensity)],
        "teacher": teacher,
        "images": sha256_of_array(sources.numpy()),
    }
    checkpoint, kept = Checkpoint(work / "distil_pairs.safetensors", sha256_of_json(identity)), _Restyled(sources)
    states: tuple[dict, dict, dict] = ({}, {"pairs": kept}, {})
    start, done = checkpoint.load(*states) if resume else (0, False)
    if done:
        return kept.weights["teacher"]
    plain = stylizer.configured(detail=False, strength=1.0, readout=teacher)
    bar = tqdm(total=len(sources), initial=start, desc="teacher", unit="image", dynamic_ncols=True)
    with Interruptible() as interrupted, bar:
        for first in range(start, len(sources), BATCH):
            part = sources[first : first + BATCH]
            kept.weights["teacher"][first : first + BATCH] = plain.stylize(part.to(stylizer.device)).cpu()
            reached = first + len(part)
            bar.update(len(part))
            last = reached == len(sources)
            if last or interrupted() or (reached // BATCH) % SAVE_EVERY == 0:
                checkpoint.save(reached, *states, done=last)
            if interrupted() and not last:
                raise KeyboardInterrupt
    return kept.weights["teacher"]


def train_student(
    sources: torch.Tensor,
    restyled: torch.Tensor,
    config: DistilConfig,
    *,
    teacher: str,
    work: Path,
    device: str = "cpu",
    resume: bool = False,
) -> Student:
    """Train both directions on pairs ``(N, C, S, S)`` in [-1, 1]: source to restyled, and restyled to source.

    Args:
        work: folder of ``student.safetensors`` and ``student.jsonl``; ``resume`` goes on to the same weights.

    Loss: mean absolute difference in view, and ``slope_weight`` times that of the local slopes.

    Raises:
        OsasisError: a loss that is not finite. KeyboardInterrupt: after the state has been saved.
    """
    channels, size = sources.shape[1], min(LARGEST, sources.shape[-1])
    torch.manual_seed(config.seed)
    student = Student(channels, size, config.width, teacher).to(device).train()
    pairs = torch.cat([sources, restyled], dim=1)
    identity = {
        "stage": "student",
        "config": {k: v for k, v in as_json(config).items() if k != "checkpoint_every"},
        "pairs": sha256_of_array(pairs.numpy()),
    }

    def losses(generator: torch.Generator) -> dict[str, torch.Tensor]:
        chosen = pairs[torch.randint(len(pairs), (config.batch_size,), generator=generator)]
        chosen = random_crop(chosen, config.crop, generator)
        view = field_of_view(chosen[:, :channels]).to(device)
        before, after = chosen.to(device).split(channels, dim=1)
        forth = imitation_loss(student.forth, before, after, view, config.slope_weight)
        back = imitation_loss(student.back, after, before, view, config.slope_weight)
        return {"loss": forth + back, "forth": forth, "back": back}

    train_short(
        student, losses, config, name="student", title="distil", work=work, identity=sha256_of_json(identity),
        stream=STREAM, without="--no-distil", resume=resume,
    )  # fmt: skip
    return student


def imitation_loss(
    network: LocalAffineStudent, before: torch.Tensor, after: torch.Tensor, view: torch.Tensor, slope_weight: float
) -> torch.Tensor:
    """Mean absolute difference to ``after`` ``(B, C, S, S)`` in ``view``, and of the slopes that explain it."""
    field = network.field(resample(before, network.size, network.size))
    inside = view.to(before)
    share = inside.mean().clamp(min=1e-6)
    loss = ((apply_field(field, before) - after).abs() * inside).mean() / share
    if slope_weight:
        channels = before.shape[1]
        slope, _ = fit_local_affine(before, after)
        slope = slope - torch.eye(channels).to(slope)[None, :, :, None, None]
        wanted = resample(slope.flatten(1, 2), *field.shape[-2:])
        weight = resample(inside, *field.shape[-2:])
        loss = loss + slope_weight * ((field[:, : channels * channels] - wanted).abs() * weight).mean() / share
    return loss


def distil(
    stylizer: OSASISStylizer, sources: torch.Tensor, config: DistilConfig, *, work: Path, resume: bool = False
) -> Student | None:
    """The stylizer's student, and its fidelity in ``stylizer.findings["student"]``; None where none is wanted.

    Args:
        sources: ``(N, C, S, S)`` in [-1, 1] at the networks' size.

    Raises ``OsasisError`` for fewer than two images, ``KeyboardInterrupt`` after saving.
    """

    teacher = config.teacher(stylizer.config.readout)
    if teacher is None:
        return None
    if len(sources) < 2:
        raise OsasisError(
            "A student needs at least 2 source images",
            found=len(sources),
            remedy="Add source images, or leave it out with --no-distil.",
        )
    chosen = resize(evenly_spaced(sources, min(config.images, len(sources))), (stylizer.size, stylizer.size)).clamp(
        -1, 1
    )
    restyled = teacher_pairs(stylizer, chosen, teacher, work=work, resume=resume)
    training, held_out = split_scenes(chosen)
    count = len(training)
    student = train_student(
        training, restyled[:count], config, teacher=teacher, work=work, device=str(stylizer.device), resume=resume
    )
    truth = restyled[-len(held_out) :]
    stylizer.findings = {**stylizer.findings, "student": {"teacher": teacher, **fidelity(student, held_out, truth)}}
    return student


def style_distance(images: torch.Tensor, truths: torch.Tensor, view: torch.Tensor) -> list[float]:
    """Per image, how far mean and deviation of its pixels in ``view`` ``(B, 1, H, W)`` are from another's.

    The root of the squared differences of means and deviations, over the channels of ``color_space.perceptual``
    (about 2 is visible).
    """
    found = []
    for one, other, keep in zip(images, truths, view[:, 0].flatten(1), strict=True):
        a, b = (perceptual(x.flatten(1)[None, :, keep].float())[0] for x in (one, other))
        moments = [torch.cat([x.mean(dim=1), x.std(dim=1, correction=0)]) for x in (a, b)]
        found.append(float((moments[0] - moments[1]).square().sum().sqrt()))
    return found


def compare(sources: torch.Tensor, restyled: torch.Tensor, truths: torch.Tensor) -> dict[str, float]:
    """Means over images ``(N, C, H, W)`` in [-1, 1] of a student's pictures beside its teacher's, of equal sources.

    ``psnr`` (dB), ``ssim`` and ``style_distance`` to the teacher; ``structure_teacher`` and ``structure_student``:
    ``pair_quality.structure_agreement`` with the source.
    """
    from nnunet_osasis.maps.distance import psnr, ssim

    view = field_of_view(sources)
    levels = [((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy() for x in (restyled, truths)]
    rows = list(zip(*levels, strict=True))
    return {
        "images": len(sources),
        "psnr": round(fmean(psnr(a, b) for a, b in rows), 3),
        "ssim": round(fmean(ssim(a, b) for a, b in rows), 4),
        "style_distance": round(fmean(style_distance(restyled, truths, view)), 3),
        "style_distance_unchanged": round(fmean(style_distance(sources, truths, view)), 3),
        "structure_teacher": round(float(structure_agreement(sources, truths, view).mean()), 4),
        "structure_student": round(float(structure_agreement(sources, restyled, view).mean()), 4),
    }


@torch.inference_mode()
def fidelity(student: Student, sources: torch.Tensor, truths: torch.Tensor) -> dict[str, dict[str, float]]:
    """``compare`` both ways: held-out ``sources`` ``(N, C, S, S)`` in [-1, 1], and the teacher's pictures of them.

    The way back starts from the teacher's pictures, and the truth is the source.
    """

    def restyle(images: torch.Tensor, backwards: bool) -> torch.Tensor:
        changed = student.restyle(images, backwards=backwards).clamp(-1, 1)
        return torch.where(field_of_view(images), changed, images)

    return {
        "source_to_target": compare(sources, restyle(sources, False), truths),
        "target_to_source": compare(truths, restyle(truths, True), sources),
    }
