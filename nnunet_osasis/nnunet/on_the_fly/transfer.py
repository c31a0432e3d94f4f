"""A stylizer's one pass as the style transfer that the gate and the measurements of whole cases see."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import check_array
from nnunet_osasis.images.intensity import from_unit, to_unit
from nnunet_osasis.images.units import check_units
from nnunet_osasis.runtime.compute import as_usual
from nnunet_osasis.runtime.storage import sha256_of_json, sha256_of_tensors
from nnunet_osasis.stylizer.names import STUDENT, needs_networks
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.transfer import check_strength

SLICES = 32
"""Number of images in one pass, which bounds the memory that a volume's slices take at once."""


class OnePassTransfer:
    """The style transfer that ``stylizer.as_module()`` computes.

    Args:
        stylizer: moved together with the module by ``to``.

    Raises:
        OsasisError: the stylizer carries detail over, or its read-out runs the networks and it has no student.
    """

    def __init__(self, stylizer: OSASISStylizer) -> None:
        detail = stylizer.detail
        if stylizer.config.detail and (detail.sharpness or detail.noise):
            raise OsasisError(
                '"on_the_fly" carries no sharpness and no noise over',
                found="a stylizer with detail",
                remedy='Leave "on_the_fly" out, or make the stylizer without detail.',
            )
        if needs_networks(stylizer.config.readout):  # the student stands in, and a pickle then holds it alone
            stylizer.student_of(stylizer.config.readout)
            stylizer = stylizer.configured(readout=STUDENT)
        self.stylizer, self._module = stylizer, stylizer.as_module()

    def __reduce__(self) -> tuple:
        return OnePassTransfer, (self.stylizer,)

    def to(self, device: str) -> OnePassTransfer:
        """Move stylizer and module to a device; returns self."""
        self.stylizer.to(device)
        self._module.to(device)
        return self

    @property
    def in_channels(self) -> int:
        """Number of image channels."""
        return self.stylizer.in_channels

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the stylizer and of its module."""
        weights = {name: value.cpu() for name, value in self._module.state_dict().items()}
        return sha256_of_json([self.stylizer.fingerprint, sha256_of_tensors(weights, {})])

    @as_usual()
    def restyle(self, images: torch.Tensor, strengths: torch.Tensor) -> torch.Tensor:
        """Restyle ``(N, C, H, W)`` in [-1, 1] at strengths ``(N,)`` in [0, 1], both on the module's device."""
        parts = zip(images.split(SLICES), strengths.split(SLICES), strict=True)
        return torch.cat([self._module(part, amount) for part, amount in parts])

    @as_usual()
    def stylize_array(self, array: np.ndarray, *, strength: float | None = None) -> np.ndarray:
        """Stylize as :class:`nnunet_osasis.transfer.StyleTransfer` says."""
        amount = check_strength(self.stylizer.config.strength if strength is None else strength)
        check_array(array, channels=self.in_channels)
        if amount == 0:
            return array.astype(np.float32)
        check_units(array, self.stylizer.config.intensity)
        bounds = self.stylizer.config.intensity.bounds(array)
        unit = torch.from_numpy(to_unit(array, bounds))
        slices = unit[None] if unit.ndim == 3 else unit.movedim(1, 0)
        device = self.stylizer.device
        strengths = torch.full((len(slices),), amount).to(device)
        parts = zip(slices.split(SLICES), strengths.split(SLICES), strict=True)
        restyled = torch.cat([self.restyle(part.to(device), weights).cpu() for part, weights in parts])
        unit = restyled[0] if unit.ndim == 3 else restyled.movedim(0, 1)
        return from_unit(unit.numpy(), bounds, original=array)
