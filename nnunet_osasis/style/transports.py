"""Eqs. 11 and 12 of the paper: terms that move images between the domains, or ask the SPN about noise."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nnunet_osasis.diffusion.ddim import add_noise, predict_x0
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.diffusion.unet import ConditionalUNet
from nnunet_osasis.style.losses import half_cycle


def transported(
    there: ConditionalUNet,
    back: ConditionalUNet,
    encode: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    noise: torch.Tensor,
    level: int,
    alpha_bar: torch.Tensor,
) -> torch.Tensor:
    """One of eq. 11's two terms, with each transport as a one-call prediction of the clean image from one noise level.

    Args:
        there, back: the decoders of the two domains. encode: the semantic encoder.
        images: ``(B, C, S, S)`` in [-1, 1]. noise: as many. level, alpha_bar: the noise level, as an index and itself.
    """

    def moved(unet: ConditionalUNet, x0: torch.Tensor) -> torch.Tensor:
        x, t = add_noise(x0, noise, alpha_bar), torch.full((len(x0),), level, device=x0.device)
        return predict_x0(x, unet(x, t, encode(x0)).float(), alpha_bar).clamp(-1, 1)

    return half_cycle(lambda x0: moved(there, x0), lambda x0: moved(back, x0), images)


def spn_loss(spn: StructurePreservingNetwork, content: torch.Tensor, x_t0: torch.Tensor, t0: int) -> torch.Tensor:
    """The noise-invariance reading of eq. 12: what the SPN says of images ``(B, C, S, S)`` and of them at level ``t0``.

    Its trivial minimum is a constant SPN.
    """
    t = torch.full((len(content),), t0, device=content.device)
    return (spn(x_t0, t) - spn(content, t)).square().mean(dim=(1, 2, 3)).add(1e-12).sqrt().mean()
