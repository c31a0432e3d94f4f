"""The losses of one-shot adaptation, and the two recipes that weight them.

``osasis``: what the official code optimizes. ``paper``: eqs. (10)-(13) as the segmentation paper writes them, in
the reading of docs/method.md, since the text leaves symbols undefined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from nnunet_osasis.diffusion.ddim import add_noise, predict_x0
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.diffusion.unet import ConditionalUNet
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.training.adaptation.embedders import StyleEmbedder


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; a zero switches a term off and saves its cost.

    Attributes:
        cross_domain: directions style_A to style_B and content_A to content_B agree (CLIP-directional).
        in_domain: directions style to content agree in A and in B.
        embedding: the decoded style image has the reference's embedding.
        l1: the decoded style image has the reference's pixels.
        perceptual: the decoded style image has the reference's feature maps.
        statistics: channel means and deviations change for the content as they do for the style pair (ours).
        adversarial: lambda_1 of eq. 13, on eq. 10.
        cycle: lambda_2 of eq. 13, on eq. 11.
        spn: lambda_3 of eq. 13, on eq. 12.
    """

    cross_domain: float = 0.0
    in_domain: float = 0.0
    embedding: float = 0.0
    l1: float = 0.0
    perceptual: float = 0.0
    statistics: float = 0.0
    adversarial: float = 0.0
    cycle: float = 0.0
    spn: float = 0.0


LOSSES: dict[str, LossWeights] = {
    "osasis": LossWeights(cross_domain=1.0, in_domain=0.5, embedding=30.0, l1=10.0, perceptual=10.0),
    "paper": LossWeights(adversarial=1.0, cycle=10.0, spn=1.0),
}


def get_losses(name: str) -> LossWeights:
    """Look a recipe up. Raises ``OsasisError`` with the known names."""
    if name not in LOSSES:
        raise OsasisError("The loss recipe must be known", found=name, remedy=f"Use one of {', '.join(LOSSES)}.")
    return LOSSES[name]


def direction_loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``1 - cos(a, b)`` averaged over the batch; embeddings ``(B, E)``."""
    return (1 - F.cosine_similarity(a, b, dim=1)).mean()


def perceptual_loss(a: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
    """Mean squared distance of channel-normalized feature maps, summed over channels, averaged over levels."""
    return torch.stack([(x - y).square().sum(1).mean() for x, y in zip(a, b, strict=True)]).mean()


def channel_statistics(images: torch.Tensor) -> torch.Tensor:
    """Means and deviations per channel: ``(B, C, H, W)`` to ``(B, 2 C)``."""
    return torch.cat([images.mean(dim=(2, 3)), images.flatten(2).std(dim=2)], dim=1)


@dataclass(frozen=True)
class Anchors:
    """The style pair, which stays constant over an adaptation, embedded once.

    Attributes:
        style_a: ``y_A`` ``(1, C, S, S)``, the reference as the source domain would show it.
        style_b: ``y`` ``(1, C, S, S)``, the reference.
        embedded_a: embedding of ``style_a``.
        embedded_b: embedding of ``style_b``.
        features_b: feature maps of ``style_b``.
    """

    style_a: torch.Tensor
    style_b: torch.Tensor
    embedded_a: torch.Tensor
    embedded_b: torch.Tensor
    features_b: list[torch.Tensor]

    @classmethod
    def of(cls, style_a: torch.Tensor, style_b: torch.Tensor, embed: StyleEmbedder) -> Anchors:
        """Embed the pair, without gradients."""
        with torch.no_grad():
            return cls(style_a, style_b, embed(style_a), embed(style_b), embed.features(style_b))


def style_terms(
    weights: LossWeights,
    embed: StyleEmbedder,
    anchors: Anchors,
    decoded_style: torch.Tensor,
    content: torch.Tensor,
    content_embedded: torch.Tensor,
    decoded_content: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Return the unweighted terms on the predicted x0 of one reverse step, by name.

    Of several processes only one has the style branch: terms of missing rows are left out.

    Args:
        weights: terms of weight 0 are left out.
        embed: style embedder.
        anchors: the style pair.
        decoded_style: ``D_B``'s prediction for the style branch ``(1 or 0, C, S, S)``.
        content: source images ``(B, C, S, S)``.
        content_embedded: their embeddings.
        decoded_content: ``D_B``'s predictions for them.
    """
    terms: dict[str, torch.Tensor] = {}
    styles, contents = len(decoded_style), len(decoded_content)
    shown = decoded_style if weights.embedding or weights.perceptual else decoded_style[:0]
    others = (
        decoded_content if weights.cross_domain or weights.in_domain or weights.adversarial else decoded_content[:0]
    )
    both, featured = torch.cat([shown, others]), len(shown) if weights.perceptual else 0
    embedded_style, embedded_b, features = shown, others, list[torch.Tensor]()
    if len(both):  # in one pass: it costs as much as the decoder's
        embedded, features = embed.with_features(both, featured)
        embedded_style, embedded_b = embedded.split([len(shown), len(others)])
    if weights.cross_domain and contents:
        terms["cross_domain"] = direction_loss(anchors.embedded_b - anchors.embedded_a, embedded_b - content_embedded)
    if weights.in_domain and contents:
        terms["in_domain"] = direction_loss(content_embedded - anchors.embedded_a, embedded_b - anchors.embedded_b)
    if weights.adversarial and contents:
        terms["adversarial"] = direction_loss(embedded_b, anchors.embedded_b)
    if weights.embedding and styles:
        terms["embedding"] = direction_loss(embedded_style, anchors.embedded_b)
    if weights.l1 and styles:
        terms["l1"] = (decoded_style - anchors.style_b).abs().mean()
    if weights.perceptual and styles:
        terms["perceptual"] = perceptual_loss(features, anchors.features_b)
    if weights.statistics and contents:
        wanted = channel_statistics(anchors.style_b) - channel_statistics(anchors.style_a)
        found = channel_statistics(decoded_content) - channel_statistics(content)
        terms["statistics"] = (found - wanted).abs().mean()
    return terms


def cycle_loss(
    forward: Callable[[torch.Tensor], torch.Tensor],
    backward: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
) -> torch.Tensor:
    """Eq. 11 as printed: ``|G(F(G(x))) - G(x)|_1 + |F... |``, with ``G`` and ``F`` as one-step predictions.

    ``forward`` is G (source to target, ``D_B``), ``backward`` F (target to source, ``D_A``). The second term of the
    paper, ``|G(F(y)) ...|``, is read as ``|F(G(F(y))) - F(y)|_1``, the mirror image of the first.
    """
    return half_cycle(forward, backward, x) + half_cycle(backward, forward, y)


def half_cycle(
    there: Callable[[torch.Tensor], torch.Tensor], back: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    """``|there(back(there(x))) - there(x)|_1``, one of eq. 11's two terms."""
    moved = there(x)
    return (there(back(moved)) - moved).abs().mean()


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
        there: decoder of the other domain.
        back: decoder of the images' own domain.
        encode: the semantic encoder.
        images: ``(B, C, S, S)`` in [-1, 1].
        noise: same shape.
        level: index of the noise level.
        alpha_bar: the noise level itself.
    """

    def moved(unet: ConditionalUNet, x0: torch.Tensor) -> torch.Tensor:
        x, t = add_noise(x0, noise, alpha_bar), torch.full((len(x0),), level, device=x0.device)
        return predict_x0(x, unet(x, t, encode(x0)).float(), alpha_bar).clamp(-1, 1)

    return half_cycle(lambda x0: moved(there, x0), lambda x0: moved(back, x0), images)


def spn_loss(spn: StructurePreservingNetwork, content: torch.Tensor, x_t0: torch.Tensor, t0: int) -> torch.Tensor:
    """Eq. 12 read as noise invariance: distance of the SPN's outputs for images ``(B, C, S, S)``, clean and at ``t0``.

    Its trivial minimum is a constant SPN.
    """
    t = torch.full((len(content),), t0, device=content.device)
    return (spn(x_t0, t) - spn(content, t)).square().mean(dim=(1, 2, 3)).add(1e-12).sqrt().mean()
