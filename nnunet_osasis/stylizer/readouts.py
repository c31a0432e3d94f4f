"""The read-outs: each one is a module that restyles images at full strength."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from nnunet_osasis.diffusion.sampler import SamplerConfig
from nnunet_osasis.diffusion.transfer import transfer_style
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.bands import in_bands
from nnunet_osasis.maps.base import PixelMap
from nnunet_osasis.maps.field_of_view import Frame, field_of_view
from nnunet_osasis.maps.local_affine import carry_change
from nnunet_osasis.maps.resize import resize, rows_of
from nnunet_osasis.stylizer import names

if TYPE_CHECKING:  # importing the networks imports diffusers, which a map does not need
    from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
    from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
    from nnunet_osasis.diffusion.unet import ConditionalUNet
    from nnunet_osasis.stylizer.student import Student

NEIGHBORS = 2
"""Number of slices to either side that a local map of a volume is fitted over."""

SIGMA = 1 / 16
"""Standard deviation of ``frequency``'s Gaussian, as a share of the side of the networks' grid."""


class Readout(nn.Module):
    """One way from an image to its restyled version.

    Attributes:
        needs_networks: whether it runs the diffusion networks on every image. These repaint the image, so that the
            structure gate has to allow for their round trip.
    """

    needs_networks: ClassVar[bool] = False

    def forward(self, images: torch.Tensor, *, backwards: bool = False, joint: bool = False) -> torch.Tensor:
        """Restyle a batch at full strength.

        Args:
            images: ``(B, C, H, W)`` in [-1, 1], any size.
            backwards: from the target's style to the source's.
            joint: the batch is the slices of one volume, in order.

        Returns:
            ``(B, C, H, W)`` on the images' device, not clipped.
        """
        raise NotImplementedError


class MapReadout(Readout):
    """A color or tone map: no pixel moves, no neighbor matters.

    Args:
        change: from source to target.
        inverse: the way back, None if the stylizer has none.
    """

    def __init__(self, change: PixelMap, inverse: PixelMap | None) -> None:
        super().__init__()
        self.change, self.inverse = change, inverse

    def forward(self, images: torch.Tensor, *, backwards: bool = False, joint: bool = False) -> torch.Tensor:
        change = self.inverse if backwards else self.change
        if change is None:
            raise OsasisError(
                "The way back needs the inverse of the read-out's map", found="none", remedy="Make the stylizer anew."
            )
        return in_bands(images, change)


class StudentReadout(Readout):
    """The one-pass student, which imitates a read-out that runs the networks."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, images: torch.Tensor, *, backwards: bool = False, joint: bool = False) -> torch.Tensor:
        return self.student.restyle(images, backwards=backwards, joint=joint)


class DiffusionReadout(Readout):
    """The picture that one network decodes from what the other one encoded, carried to the image's own grid.

    Args:
        autoencoder: ``Enc`` and ``D_A``.
        decoder: ``D_B``'s UNet.
        spn: the structure-preserving network.
        sampler: grids, weight of the SPN and mixing of codes.
        style: the reference at the networks' size ``(1, C, S, S)`` in [-1, 1], if ``sampler.mix`` is ``style``.
        frames: of the source images, and of the target's for the way back.
    """

    needs_networks = True
    relative: ClassVar[bool] = False

    def __init__(
        self,
        autoencoder: DiffusionAutoencoder,
        decoder: ConditionalUNet,
        spn: StructurePreservingNetwork,
        sampler: SamplerConfig,
        style: torch.Tensor | None = None,
        frames: Sequence[Frame | None] = (None, None),
    ) -> None:
        super().__init__()
        self.autoencoder, self.decoder, self.spn = autoencoder, decoder, spn
        self.sampler, self.style, self.frames = sampler, style, frames

    def forward(self, images: torch.Tensor, *, backwards: bool = False, joint: bool = False) -> torch.Tensor:
        small = self.at_network_size(images)
        picture = self.picture(small, backwards=backwards, joint=joint, relative=self.relative)
        after = small + picture if self.relative else picture
        return self.carry(images, small, after, joint=joint, frame=self.frames[backwards])

    def at_network_size(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(B, C, H, W)`` as the networks see them: ``(B, C, S, S)`` in [-1, 1]."""
        side = int(self.autoencoder.config.sample_size)
        return resize(images, (side, side)).clamp(-1, 1)

    def picture(
        self, small: torch.Tensor, *, backwards: bool = False, joint: bool = False, relative: bool = False
    ) -> torch.Tensor:
        """The networks' own picture of ``(B, C, S, S)``, as of ``transfer_style``, on the images' device."""
        device = self.autoencoder.device
        first, second = self.autoencoder.unet, self.decoder
        if backwards:
            first, second = second, first
        return transfer_style(
            self.autoencoder.semantic_encoder, first, second, None if backwards else self.spn,
            small.to(device, torch.float32), self.sampler,
            style=None if backwards or self.style is None else self.style.to(device), joint=joint, relative=relative,
        ).to(small)  # fmt: skip

    def carry(
        self, images: torch.Tensor, small: torch.Tensor, after: torch.Tensor, *, joint: bool, frame: Frame | None = None
    ) -> torch.Tensor:
        """Carry the change from ``small`` to ``after``, both ``(B, C, S, S)``, to the images' grid.

        By default images of the networks' size take the picture itself, and others its change by the guided filter.
        """
        if small.shape == images.shape:
            return after.clamp(-1, 1)
        return carry_change(small, after, images, slices=NEIGHBORS if joint else 0)


class LocalAffineReadout(DiffusionReadout):
    """The picture's change as a field of affine maps, at every size."""

    def carry(
        self, images: torch.Tensor, small: torch.Tensor, after: torch.Tensor, *, joint: bool, frame: Frame | None = None
    ) -> torch.Tensor:
        return carry_change(small, after, images, slices=NEIGHBORS if joint else 0)


class DifferenceReadout(DiffusionReadout):
    """What ``D_B``'s picture has beyond ``D_A``'s own round trip: the error that both share cancels."""

    relative = True


class FrequencyReadout(DiffusionReadout):
    """The low frequencies of the picture's change."""

    def carry(
        self, images: torch.Tensor, small: torch.Tensor, after: torch.Tensor, *, joint: bool, frame: Frame | None = None
    ) -> torch.Tensor:
        change = low_frequencies(after - small, field_of_view(small, frame, joint=joint))
        height, width = images.shape[-2:]
        # smooth, so that plain interpolation moves no edge
        return in_bands(
            images,
            lambda part, band: part + rows_of(change[band.slices], height, width, band.rows, antialias=True),
        )


READOUTS: dict[str, type[Readout]] = {name: MapReadout for name in names.READOUTS} | {
    "raw": DiffusionReadout,
    "local_affine": LocalAffineReadout,
    "difference": DifferenceReadout,
    "frequency": FrequencyReadout,
    names.STUDENT: StudentReadout,
}
"""The class of every read-out, by its name (``names.READOUTS`` says what each one does)."""


def low_frequencies(change: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
    """Blur ``(B, C, S, S)`` with a Gaussian of ``S / 16`` pixels, normalized over ``view``, bool ``(B, 1, S, S)``.

    The kernel reaches three standard deviations to either side. Nothing outside the view counts, and a constant
    inside it stays that constant up to its border.
    """
    from torchvision.transforms.functional import gaussian_blur  # only this read-out needs torchvision

    sigma = SIGMA * change.shape[-1]
    kernel = 2 * math.ceil(3 * sigma) + 1
    inside = view.to(change)
    weight = gaussian_blur(inside, kernel, sigma)
    return gaussian_blur(change * inside, kernel, sigma) / weight.clamp(min=1e-6)
