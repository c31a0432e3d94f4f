"""The read-outs that run the networks on every image: how their picture's change gets onto the image's own grid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torchvision.transforms.functional import gaussian_blur

from nnunet_osasis.border import field_of_view
from nnunet_osasis.local_affine import carry_change, resize
from nnunet_osasis.sampler import decode_images, encode_images, spn_injection

if TYPE_CHECKING:
    from nnunet_osasis.stylizer import OSASISStylizer

NEIGHBOURS = 2
"""Slices to either side that a local map of a volume is fitted over."""
SIGMA = 1 / 16
"""Of ``frequency``'s Gaussian, in sides of the networks' grid."""


def transfer(
    stylizer: OSASISStylizer, unit: torch.Tensor, code: torch.Tensor, backwards: bool, *, relative: bool = False
) -> torch.Tensor:
    """Encode ``(B, C, S, S)`` with one decoder and its code ``(B, z)``, decode with the other, in [-1, 1].

    ``relative``: minus the first decoder's own round trip (no SPN, no other code): a difference in [-2, 2].
    """
    sampler = stylizer.config.sampler
    first, second = stylizer.autoencoder.unet, stylizer.decoder
    if backwards:
        first, second = second, first
    x_t = encode_images(first, unit, code, sampler)
    fine = None
    if sampler.mix == "style" and not backwards:
        reference = stylizer.reference_unit().to(stylizer.device)
        fine = stylizer.autoencoder.semantic_encoder(reference).expand(len(unit), -1)
    inject = None if backwards else spn_injection(stylizer.spn, unit, sampler)
    picture = decode_images(second, x_t, code, sampler, fine_code=fine, inject=inject).clamp(-1, 1)
    if relative:
        return picture - decode_images(first, x_t, code, sampler).clamp(-1, 1)
    return picture


def low_frequencies(change: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
    """Blur ``(B, C, S, S)`` with a Gaussian of ``S / 16`` pixels, normalised over ``view``, bool ``(B, 1, S, S)``.

    The kernel reaches three standard deviations to either side. Nothing outside the view counts, and a constant
    inside it stays that constant up to its border.
    """
    sigma = SIGMA * change.shape[-1]
    kernel = 2 * math.ceil(3 * sigma) + 1
    inside = view.to(change)
    weight = gaussian_blur(inside, kernel, sigma)
    return gaussian_blur(change * inside, kernel, sigma) / weight.clamp(min=1e-6)


def apply_decoded(
    stylizer: OSASISStylizer, images: torch.Tensor, readout: str, *, backwards: bool, joint: bool
) -> torch.Tensor:
    """One of the read-outs in ``DECODED`` on ``(B, C, H, W)`` in [-1, 1] of any size; the result is not clipped
    where it was carried to another size."""
    small = resize(images, (stylizer.size, stylizer.size)).clamp(-1, 1)
    relative = readout == "difference"
    found = stylizer.decode_style(small, backwards=backwards, joint=joint, relative=relative).to(images)
    if readout == "frequency":
        change = low_frequencies(found - small, field_of_view(small, joint=joint))
        size = (images.shape[-2], images.shape[-1])
        return images + resize(change, size)  # smooth, so that plain interpolation moves no edge
    after = small + found if relative else found
    if readout in ("raw", "difference") and small.shape == images.shape:
        return after.clamp(-1, 1)
    return carry_change(small, after, images, slices=NEIGHBOURS if joint else 0)
