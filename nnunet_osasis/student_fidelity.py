"""How well a student imitates its teacher, on source images it has not seen."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

import torch

from nnunet_osasis.gate.structure import structure_agreement
from nnunet_osasis.maps.color import perceptual
from nnunet_osasis.maps.field_of_view import field_of_view

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.student import Student


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
