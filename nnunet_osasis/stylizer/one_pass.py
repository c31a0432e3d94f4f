"""One pass from image to restyled image, for training steps, GPUs and exported files."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.base import blend
from nnunet_osasis.maps.field_of_view import Frame
from nnunet_osasis.runtime.compute import as_usual
from nnunet_osasis.stylizer.names import STUDENT, is_map
from nnunet_osasis.stylizer.serialization import StylizerState


class OnePass(nn.Module):
    """A read-out, its strength and the frame as one module in pure torch, without a branch on values.

    Args:
        change: maps ``(B, C, H, W)`` in [-1, 1] to the restyled image at full strength, not clipped.
        channels: ``C``.
        frame: of the images; it stays as it is.
    """

    def __init__(self, change: nn.Module, channels: int, frame: Frame | None = None) -> None:
        super().__init__()
        self.change, self.channels, self.frame = change, channels, frame
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        """Restyle a batch.

        Args:
            images: ``(B, C, H, W)`` in [-1, 1], any size, finite; not checked, so that nothing waits for the device.
            strength: ``(B,)`` in [0, 1]; not checked.

        Returns:
            ``(B, C, H, W)`` float32 in [-1, 1]: bit for bit the image where the strength is 0, and in its frame.

        Raises:
            OsasisError: another rank, other channels, or another number of strengths than of images.
        """
        if images.ndim != 4 or images.shape[1] != self.channels or strength.shape != images.shape[:1]:
            raise OsasisError(
                f"One pass takes images (B, {self.channels}, H, W) and strengths (B,)",
                found=f"{tuple(images.shape)} and {tuple(strength.shape)}",
                remedy="Add the batch axis, or use a stylizer made for such images.",
            )
        images = images.float()
        if torch.compiler.is_compiling():  # a compiled or exported module has no caller whose state could reach it
            return self._restyle(images, strength)
        with as_usual(graphs=True):
            return self._restyle(images, strength)

    def _restyle(self, images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        return blend(images, self.change(images), strength, self.frame)


def one_pass_facts(state: StylizerState) -> dict[str, Any]:
    """Return what runs in one pass: the read-outs, the teacher of the student, and its number of weights."""
    student: Any = state.networks.get(STUDENT)
    names = [state.config.readout] if is_map(state.config.readout) else []
    names += [] if student is None else [STUDENT]
    weights = 0 if student is None else sum(parameter.numel() for parameter in student.parameters())
    return {"readouts": names, "teacher": student and student.config.teacher, "weights": weights}
