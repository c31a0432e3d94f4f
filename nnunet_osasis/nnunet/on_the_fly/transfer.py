"""A stylizer's one pass as the style transfer that the gate and the measurements of whole cases see."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import check_array
from nnunet_osasis.images.intensity import from_unit, to_unit
from nnunet_osasis.runtime.storage import sha256_of_json, sha256_of_tensors
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

SLICES = 32
"""Images in one pass: what a volume's slices take in memory at once."""


class OnePassTransfer:
    """``stylize_array`` by ``stylizer.one_pass()``; a weaker image is a blend with the original in native units.

    Raises ``OsasisError`` when the stylizer has no one pass: it is decoded without a student, or carries detail over.
    """

    def __init__(self, stylizer: OSASISStylizer) -> None:
        change = stylizer.detail
        if stylizer.config.detail and (change.sharpness or change.noise):
            raise OsasisError(
                '"on_the_fly" carries no sharpness and no noise over',
                found="a stylizer with detail",
                remedy='Leave "on_the_fly" out, or make the stylizer without detail.',
            )
        self.stylizer, self._one_pass = stylizer, stylizer.one_pass()

    def __reduce__(self) -> tuple:
        return OnePassTransfer, (self.stylizer,)

    def to(self, device: str) -> OnePassTransfer:
        """Move stylizer and one pass to a device; returns self."""
        self.stylizer.to(device)
        self._one_pass.to(device)
        return self

    @property
    def in_channels(self) -> int:
        """Number of image channels."""
        return self.stylizer.in_channels

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the stylizer and of its one pass."""
        weights = {name: value.cpu() for name, value in self._one_pass.state_dict().items()}
        return sha256_of_json([self.stylizer.fingerprint, sha256_of_tensors(weights, {})])

    @torch.no_grad()
    def full(self, images: torch.Tensor) -> torch.Tensor:
        """``(N, C, H, W)`` in [-1, 1] at full strength, without gradients."""
        # Not in inference mode: a network cannot be trained on what comes from there.
        strength = torch.ones(len(images), device=images.device)
        parts = zip(images.split(SLICES), strength.split(SLICES), strict=True)
        return torch.cat([self._one_pass(part, amount) for part, amount in parts])

    def stylize_array(self, array: np.ndarray, *, strength: float | None = None) -> np.ndarray:
        """As :class:`nnunet_osasis.transfer.StyleTransfer` says; the field of view of a volume is each slice's own."""
        amount = self.stylizer.config.strength if strength is None else strength
        check_array(array, channels=self.in_channels)
        if amount == 0:
            return array.astype(np.float32)
        bounds = self.stylizer.config.intensity.bounds(array)
        unit = torch.from_numpy(to_unit(array, bounds))
        slices = unit[None] if unit.ndim == 3 else unit.movedim(1, 0)
        restyled = torch.cat([self.full(part.to(self.stylizer.device)).cpu() for part in slices.split(SLICES)])
        unit = restyled[0] if unit.ndim == 3 else restyled.movedim(0, 1)
        styled = from_unit(unit.numpy(), bounds, original=array)
        return styled if amount == 1 else (array + amount * (styled - array)).astype(np.float32)
