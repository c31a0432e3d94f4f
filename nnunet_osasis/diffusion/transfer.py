"""Style transfer by two networks: a content image is encoded by one and decoded by the other (paper eqs. 4 to 9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from nnunet_osasis.diffusion.sampler import SamplerConfig, decode_images, encode_images, spn_injection

if TYPE_CHECKING:
    from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
    from nnunet_osasis.diffusion.unet import ConditionalUNet

BATCH = 8
"""Number of images that the networks see at once."""

DARK = -0.8
"""Level in [-1, 1] that nothing exceeds in a slice of air."""


@torch.inference_mode()
def invert(
    encoder: nn.Module, unet: ConditionalUNet, images: torch.Tensor, sampler: SamplerConfig, *, joint: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carry images to the noise level where every style starts from them (eqs. 4 and 5).

    The result depends neither on the style nor on the strength.

    Args:
        encoder: the semantic encoder ``Enc``.
        unet: ``D_A``'s UNet, or ``D_B``'s for the way back.
        images: ``(B, C, S, S)`` in [-1, 1], on the networks' device.
        sampler: the grid of levels.
        joint: the images are the slices of one volume and share the mean of their codes.

    Returns:
        Codes ``z_sem`` ``(B, z)`` and the images at level ``t0`` ``(B, C, S, S)``.
    """
    codes = torch.cat([encoder(part) for part in images.split(BATCH)])
    if joint:
        shown = (images > DARK).flatten(1).any(dim=1)  # slices of nothing but air say nothing about the volume
        codes = codes[shown if shown.any() else slice(None)].mean(dim=0, keepdim=True).expand_as(codes)
    parts = zip(images.split(BATCH), codes.split(BATCH), strict=True)
    return codes, torch.cat([encode_images(unet, part, code, sampler) for part, code in parts])


@torch.inference_mode()
def transfer_style(
    encoder: nn.Module,
    first: ConditionalUNet,
    second: ConditionalUNet,
    spn: StructurePreservingNetwork | None,
    images: torch.Tensor,
    sampler: SamplerConfig,
    *,
    style: torch.Tensor | None = None,
    joint: bool = False,
    relative: bool = False,
) -> torch.Tensor:
    """Encode images with the first UNet and decode them with the second.

    Args:
        encoder: the semantic encoder ``Enc``.
        first: UNet of the images' own domain (``D_A``, or ``D_B`` on the way back).
        second: UNet of the other domain.
        spn: the structure-preserving network, None on the way back.
        images: ``(B, C, S, S)`` in [-1, 1], on the networks' device.
        sampler: grids, weight of the SPN and mixing of codes.
        style: reference ``(1, C, S, S)`` whose code the fine levels take when ``sampler.mix`` is ``style``.
        joint: the images are the slices of one volume, in order, and share one code.
        relative: subtract the first UNet's own round trip, which has no SPN and no other code.

    Returns:
        ``(B, C, S, S)`` in [-1, 1]; in [-2, 2] if ``relative``.
    """
    codes, noise = invert(encoder, first, images, sampler, joint=joint)
    results = []
    for part, code, x_t in zip(images.split(BATCH), codes.split(BATCH), noise.split(BATCH), strict=True):
        fine = None
        if sampler.mix == "style" and style is not None:
            fine = encoder(style).expand(len(part), -1)
        inject = None if spn is None else spn_injection(spn, part, sampler)
        decoded = decode_images(second, x_t, code, sampler, fine_code=fine, inject=inject).clamp(-1, 1)
        if relative:
            decoded = decoded - decode_images(first, x_t, code, sampler).clamp(-1, 1)
        results.append(decoded)
    return torch.cat(results)
