"""One pass from image to restyled image: what a training step, a GPU and an exported file can afford."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.field_of_view import view_along_lines
from nnunet_osasis.maps.modules import map_module
from nnunet_osasis.stylizer.config import DIRECTIONS
from nnunet_osasis.stylizer.names import NETWORK_READOUTS, STUDENT
from nnunet_osasis.stylizer.student import Student

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer


class OnePass(nn.Module):
    """A read-out, its strength and the field of view as one module in pure torch, without a branch on values.

    Args:
        change: ``(B, C, H, W)`` in [-1, 1] to the restyled image at full strength, not clipped. channels: ``C``.
    """

    def __init__(self, change: nn.Module, channels: int) -> None:
        super().__init__()
        self.change, self.channels = change, channels
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        """Restyle a batch.

        Args:
            images: ``(B, C, H, W)`` in [-1, 1], any size, finite. strength: ``(B,)`` in [0, 1]; neither is looked at,
                so that nothing waits for the device.

        Returns:
            ``(B, C, H, W)`` float32 in [-1, 1]: bit for bit the image where the strength is 0; a frame around the
            field of view stays (``border_torch``).

        Raises ``OsasisError`` for another rank, other channels, or another number of strengths than of images.
        """
        if images.ndim != 4 or images.shape[1] != self.channels or strength.shape != images.shape[:1]:
            raise OsasisError(
                f"One pass takes images (B, {self.channels}, H, W) and strengths (B,)",
                found=f"{tuple(images.shape)} and {tuple(strength.shape)}",
                remedy="Add the batch axis, or use a stylizer made for such images.",
            )
        images = images.float()
        if torch.is_autocast_enabled(images.device.type):  # rounding a colour map to 16 bits would show as bands
            with torch.autocast(images.device.type, enabled=False):
                return self._restyle(images, strength)
        return self._restyle(images, strength)

    def _restyle(self, images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        weight = strength.to(images)[:, None, None, None]
        changed = torch.lerp(images, self.change(images), weight).clamp_(-1, 1)
        return torch.where(view_along_lines(images) & (weight != 0), changed, images)


def student_of(stylizer: OSASISStylizer, readout: str = STUDENT) -> Student:
    """A stylizer's student, if it imitates ``readout`` (or that is ``student``). Raises ``OsasisError`` otherwise."""
    student = stylizer.student
    if student is not None and readout in (STUDENT, student.config.teacher):
        return student
    teacher = readout if readout != STUDENT else "local_affine"
    remedy = f"Make the stylizer with osasis-pretrain-stylizer --distil {teacher}"
    if stylizer.config.readout not in (STUDENT, *NETWORK_READOUTS):
        remedy += f", or use the read-out {stylizer.config.readout}: it needs no student, it is one pass by itself"
    raise OsasisError(
        "One pass needs a student of this read-out" if readout != STUDENT else "The read-out student needs a student",
        found="none" if student is None else f"a student of {student.config.teacher}, not of {readout}",
        remedy=f"{remedy}.",
    )


def make_one_pass(stylizer: OSASISStylizer, direction: str = "source_to_target", readout: str | None = None) -> OnePass:
    """What ``OSASISStylizer.one_pass`` gives; see there."""
    readout = stylizer.config.readout if readout is None else readout
    if direction not in DIRECTIONS:
        raise OsasisError("direction must be known", found=direction, remedy=f"Use one of {DIRECTIONS}.")
    backwards = direction == "target_to_source"
    if stylizer.config.detail and not backwards and (stylizer.detail.sharpness or stylizer.detail.noise):
        raise OsasisError(
            "One pass carries no sharpness and no noise over",
            found="a stylizer with detail",
            remedy="Use stylizer.configured(detail=False).one_pass().",
        )
    if readout == STUDENT or readout in NETWORK_READOUTS:
        # a copy, which may be moved and cast without the stylizer's own
        change: nn.Module = copy.deepcopy(student_of(stylizer, readout).direction(backwards=backwards))
    else:
        change = map_module(stylizer.color_map(readout, backwards=backwards))
    return OnePass(change, stylizer.in_channels).to(stylizer.device)


def one_pass_facts(stylizer: OSASISStylizer) -> dict[str, Any]:
    """What runs in one pass: the read-outs, and the size of the student if there is one."""
    student = stylizer.student
    names = [] if stylizer.config.readout in (STUDENT, *NETWORK_READOUTS) else [stylizer.config.readout]
    names += [] if student is None else [STUDENT]
    weights = 0 if student is None else sum(parameter.numel() for parameter in student.parameters())
    return {"readouts": names, "teacher": student and student.config.teacher, "weights": weights}
