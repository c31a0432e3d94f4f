"""A plain re-implementation of one optimiser step of the reference's adaptation, to be timed beside ours.

As the published code runs it (described, not copied): CLIP ViT-B/32 is not frozen, so the gradients of its weights are
computed and never used; ten image encodings a step, of which five are distinct and two need a gradient; LPIPS on VGG-16
sees the constant reference again at every step; dropout is on. CLIP and VGG have their architectures and random
weights: a time does not depend on them. Style and content share one batch of the decoder, in the reference's favour.
"""

from __future__ import annotations

import copy

import open_clip
import torch
from torch.nn import functional as F
from torchvision.models import vgg16

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.ddim import ddim_step, linear_alpha_bar, predict_x0
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork

CELEBA64 = {
    "sample_size": 64,
    "block_out_channels": (64, 128, 256, 512),
    "encoder_block_out_channels": (64, 128, 256, 512, 512),
    "layers_per_block": 2,
    "attention_sizes": (16,),
    "time_dim": 512,
    "z_dim": 512,
    "norm_groups": 32,
    "dropout": 0.1,
    "fine_levels": (0, 1),
}
"""DiffAE's 64-px network: 71.5 M parameters in its UNet. The reference's SPN is 128 and 256 wide."""
SPN = {"hidden_channels": (128, 256), "time_dim": 512}
VGG_TAPS = (3, 8, 15, 22, 29)


def clip_tower() -> torch.nn.Module:
    """ViT-B/32 with random weights."""
    return open_clip.create_model("ViT-B-32", pretrained=None)


class ReferenceStep:
    """``step`` decodes one level further, with one Adam step of the decoder and of the SPN."""

    def __init__(
        self, model: DiffusionAutoencoder, clip: torch.nn.Module, style_a: torch.Tensor, style_b: torch.Tensor
    ) -> None:
        self.model, self.clip, self.style_a, self.style_b = model, clip, style_a, style_b
        self.decoder = copy.deepcopy(model.unet).requires_grad_(True).train()
        self.spn = StructurePreservingNetwork(in_channels=3, time="index", zero_init=False, **SPN)
        self.vgg = vgg16(weights=None).features[: VGG_TAPS[-1] + 1].eval().requires_grad_(False)
        self.optimizers = [
            torch.optim.Adam(self.decoder.parameters(), lr=5e-6),
            torch.optim.Adam(self.spn.parameters(), lr=1e-4),
        ]
        self.alpha_bar = linear_alpha_bar()

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """CLIP's embedding of images enlarged to 224 px by the nearest pixel, not normalised."""
        return self.clip.encode_image(F.interpolate(images, (224, 224)))

    def lpips(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Distance of channel-normalised features of five VGG levels."""
        total = one.new_zeros(())
        for index, layer in enumerate(self.vgg):
            one, other = layer(one), layer(other)
            if index in VGG_TAPS:
                total = total + (F.normalize(one, dim=1) - F.normalize(other, dim=1)).square().sum(1).mean()
        return total

    def step(self, x: torch.Tensor, content: torch.Tensor, code: torch.Tensor, t: int, t_next: int) -> torch.Tensor:
        """``x`` is ``[style, contents]`` at level ``t``, ``code`` their codes; returns it at ``t_next``."""
        level = torch.full((len(x),), t)
        clean = torch.cat([self.style_a, content])
        weights = torch.tensor([1.0] + [0.1] * len(content))[:, None, None, None]
        shifted = x + weights * torch.cat([self.spn(v, level[:1].expand(len(v))) for v in (clean[:1], clean[1:])])
        eps = self.decoder(shifted, level, code)
        x0 = predict_x0(shifted, eps, self.alpha_bar[t]).clamp(-1, 1)
        style, styled = x0[:1], x0[1:]

        def away(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (1 - F.cosine_similarity(a, b, dim=1)).mean()

        cross = away(self.embed(self.style_b) - self.embed(self.style_a), self.embed(styled) - self.embed(content))
        inside = away(self.embed(content) - self.embed(self.style_a), self.embed(styled) - self.embed(self.style_b))
        rebuilt = away(self.embed(style), self.embed(self.style_b))
        pixels = (style - self.style_b).abs().mean()
        loss = cross + 0.5 * inside + 30 * rebuilt + 10 * pixels + 10 * self.lpips(style, self.style_b)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        loss.item()
        return ddim_step(shifted, eps, self.alpha_bar[t], self.alpha_bar[t_next]).detach()
