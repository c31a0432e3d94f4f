"""Distillation: the teacher restyles source images once, and the student learns to do the same in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.structure import structure_agreement
from nnunet_osasis.images.slices import evenly_spaced
from nnunet_osasis.maps.base import blend
from nnunet_osasis.maps.color import perceptual
from nnunet_osasis.maps.field_of_view import field_of_view, find_frame
from nnunet_osasis.maps.local_affine import fit_local_affine
from nnunet_osasis.maps.resize import resample, resize
from nnunet_osasis.runtime.compute import generator_for
from nnunet_osasis.runtime.records import as_json
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_json
from nnunet_osasis.stylizer.names import NETWORK_READOUTS, needs_networks
from nnunet_osasis.stylizer.networks import weights_digest
from nnunet_osasis.stylizer.student import LARGEST, LocalAffineStudent, Student, apply_field
from nnunet_osasis.training.calibrate import random_crop, split_scenes
from nnunet_osasis.training.checkpoint import TrainingState
from nnunet_osasis.training.loop import HOW, OneCycle, Values, fit

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

STREAM = 9
"""Random-stream id; every training uses a different one."""

BATCH = 8
"""Number of images that the teacher restyles at once."""

SAVE_EVERY = 8
"""Number of the teacher's batches between two checkpoints."""


@dataclass(frozen=True)
class DistilConfig:
    """How a student is trained.

    Attributes:
        readout: the teacher, one of those that run the diffusion networks; None takes the stylizer's own read-out, and
            no student if that is a map, which is one pass by itself.
        iterations: optimizer steps; 0 leaves the student out.
        batch_size: pairs per step.
        images: largest number of source images that the teacher restyles, evenly spaced; the last eighth is held out.
        crop: largest share of a pair's sides that is cut off at random.
        learning_rate: peak of a one-cycle schedule.
        weight_decay: AdamW's weight decay.
        slope_weight: weight of the distance to the teacher's local slopes, which decide what becomes of detail that
            the teacher's size does not show.
        width: channels of the student's first layer.
        seed: seed of weights and batches.
        checkpoint_every: iterations between two checkpoints.
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
        if self.readout is not None and not needs_networks(self.readout):
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
        """Return the read-out to distil for a stylizer with ``readout``; None if there is nothing to train."""
        teacher = self.readout or (readout if needs_networks(readout) else None)
        return teacher if self.iterations else None


@dataclass
class _Restyled:
    """The teacher's pictures so far, in the form a checkpoint stores."""

    weights: dict[str, torch.Tensor]


def teacher_pairs(
    stylizer: OSASISStylizer, sources: torch.Tensor, teacher: str, *, work: Path, resume: bool = False
) -> torch.Tensor:
    """Restyle the source images at full strength with the teacher, once.

    Args:
        stylizer: holds the networks.
        sources: ``(N, C, S, S)`` in [-1, 1].
        teacher: read-out that runs the networks.
        work: folder of ``distil_pairs.safetensors``.
        resume: keep what is already done.

    Returns:
        ``(N, C, S, S)`` in [-1, 1].

    Raises:
        KeyboardInterrupt: after what is done has been saved.
    """
    # not the maps, which play no part here and whose last bits depend on the number of threads
    identity = {
        "stage": "distil-pairs",
        "weights": [weights_digest(network) for network in (stylizer.autoencoder, stylizer.decoder, stylizer.spn)],
        "reference": sha256_of_array(stylizer.reference),
        "settings": [as_json(stylizer.config.sampler), as_json(stylizer.config.intensity)],
        "teacher": teacher,
        "images": sha256_of_array(sources.numpy()),
        "batch": BATCH,
    }
    restyled = torch.zeros_like(sources)
    plain = stylizer.configured(detail=False, strength=1.0, readout=teacher)

    def step(index: int) -> Values:
        rows = slice(index * BATCH, (index + 1) * BATCH)
        restyled[rows] = plain.stylize(sources[rows].to(stylizer.device)).cpu()
        return {}

    state = TrainingState(sha256_of_json(identity), averages={"pairs": _Restyled({"teacher": restyled})})
    fit(
        "distil_pairs", step, state, iterations=-(-len(sources) // BATCH), work=work, resume=resume,
        save_every=SAVE_EVERY, log_every=0,
    )  # fmt: skip
    return restyled


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
    """Train both directions: source to restyled, and restyled to source.

    The loss is the mean absolute difference in view plus ``slope_weight`` times that of the local slopes.

    Args:
        sources: ``(N, C, S, S)`` in [-1, 1].
        restyled: the teacher's pictures of them, same shape.
        config: training settings.
        teacher: name of the read-out to imitate.
        work: folder of ``student.safetensors`` and ``student.jsonl``.
        device: where to train.
        resume: continue from the checkpoint to the same weights.

    Raises:
        OsasisError: a loss that is not finite.
        KeyboardInterrupt: after the state has been saved.
    """
    channels, size = sources.shape[1], min(LARGEST, sources.shape[-1])
    torch.manual_seed(config.seed)
    student = Student(channels, size, config.width, teacher).to(device).train()
    pairs, frame = torch.cat([sources, restyled], dim=1), find_frame(sources)
    training = OneCycle(
        student, learning_rate=config.learning_rate, weight_decay=config.weight_decay, iterations=config.iterations
    )

    def step(iteration: int) -> Values:
        generator = generator_for(config.seed, iteration, stream=STREAM)
        chosen = pairs[torch.randint(len(pairs), (config.batch_size,), generator=generator)]
        chosen = random_crop(chosen, config.crop, generator)
        view = field_of_view(chosen[:, :channels], frame).to(device)
        before, after = chosen.to(device).split(channels, dim=1)
        forward = imitation_loss(student.forth, before, after, view, config.slope_weight)
        inverse = imitation_loss(student.back, after, before, view, config.slope_weight)
        return training.step(iteration, {"loss": forward + inverse, "forward": forward, "inverse": inverse})

    identity = {
        "stage": "student",
        "config": {key: value for key, value in as_json(config).items() if key not in HOW},
        "pairs": sha256_of_array(pairs.numpy()),
    }
    state = TrainingState(sha256_of_json(identity), {"student": student}, optimizers={"adamw": training.optimizer})
    fit(
        "student", step, state, iterations=config.iterations, work=work, resume=resume,
        save_every=config.checkpoint_every,
        remedy="Check the source images, or leave the student out with --resume and --no-distil.",
    )  # fmt: skip
    return student.eval().requires_grad_(False)


def imitation_loss(
    network: LocalAffineStudent, before: torch.Tensor, after: torch.Tensor, view: torch.Tensor, slope_weight: float
) -> torch.Tensor:
    """Mean absolute difference to ``after`` ``(B, C, S, S)`` in ``view``, plus that of the local slopes.

    Args:
        network: one direction of a student.
        before: input images ``(B, C, S, S)`` in [-1, 1].
        after: images to produce, same shape.
        view: field of view, bool ``(B, 1, S, S)``.
        slope_weight: weight of the second term.
    """
    field = network.field(resample(before, network.size, network.size))
    inside = view.to(before)
    share = inside.mean().clamp(min=1e-6)
    loss = ((apply_field(field, before) - after).abs() * inside).mean() / share
    if slope_weight:
        channels = before.shape[1]
        slope, _ = fit_local_affine(before, after)
        slope = slope - torch.eye(channels).to(slope)[None, :, :, None, None]
        slopes = resample(slope.flatten(1, 2), *field.shape[-2:])
        weight = resample(inside, *field.shape[-2:])
        loss = loss + slope_weight * ((field[:, : channels * channels] - slopes).abs() * weight).mean() / share
    return loss


def distil(
    stylizer: OSASISStylizer, sources: torch.Tensor, config: DistilConfig, *, work: Path, resume: bool = False
) -> Student | None:
    """Train the stylizer's student and store its fidelity in ``stylizer.diagnostics["student"]``.

    Args:
        stylizer: with networks.
        sources: ``(N, C, S, S)`` in [-1, 1] at the networks' size.
        config: training settings.
        work: folder of logs and checkpoints.
        resume: continue from the checkpoints.

    Returns:
        The student; None if the settings ask for none.

    Raises:
        OsasisError: fewer than two images.
        KeyboardInterrupt: after the state has been saved.
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
    side = int(stylizer.autoencoder.config.sample_size)
    chosen = resize(sources[evenly_spaced(len(sources), config.images)], (side, side)).clamp(-1, 1)
    restyled = teacher_pairs(stylizer, chosen, teacher, work=work, resume=resume)
    training, held_out = split_scenes(chosen)
    count = len(training)
    student = train_student(
        training, restyled[:count], config, teacher=teacher, work=work, device=str(stylizer.device), resume=resume
    )
    truth = restyled[-len(held_out) :]
    stylizer.diagnostics = {
        **stylizer.diagnostics,
        "student": {"teacher": teacher, **fidelity(student, held_out, truth)},
    }
    return student


def style_distance(images: torch.Tensor, truths: torch.Tensor, view: torch.Tensor) -> list[float]:
    """Return how far mean and deviation of each image's pixels in ``view`` ``(B, 1, H, W)`` are from the truth's.

    The distance is the root of the squared differences of means and deviations in perceptual color channels; about 2
    is visible.
    """
    distances = []
    for one, other, keep in zip(images, truths, view[:, 0].flatten(1), strict=True):
        a, b = (perceptual(x.flatten(1)[None, :, keep].float())[0] for x in (one, other))
        moments = [torch.cat([x.mean(dim=1), x.std(dim=1, correction=0)]) for x in (a, b)]
        distances.append(float((moments[0] - moments[1]).square().sum().sqrt()))
    return distances


def compare(sources: torch.Tensor, restyled: torch.Tensor, truths: torch.Tensor) -> dict[str, float]:
    """Compare a student's pictures with its teacher's, of the same sources; all ``(N, C, H, W)`` in [-1, 1].

    Returns:
        Means over the images: ``psnr`` (dB), ``ssim`` and ``style_distance`` to the teacher, and the agreement of
        either one's structure with the source's.
    """
    from nnunet_osasis.maps.distance import psnr, ssim

    view = field_of_view(sources, find_frame(sources))
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
    """Compare student and teacher both ways; the way back starts from the teacher's pictures.

    Args:
        student: the student.
        sources: held-out source images ``(N, C, S, S)`` in [-1, 1].
        truths: the teacher's pictures of them.
    """

    frame = find_frame(sources)

    def restyle(images: torch.Tensor, backwards: bool) -> torch.Tensor:
        return blend(images, student.restyle(images, backwards=backwards), torch.ones(len(images)), frame)

    return {
        "source_to_target": compare(sources, restyle(sources, False), truths),
        "target_to_source": compare(truths, restyle(truths, True), sources),
    }
