"""What the one-shot adaptation optimizes, by its formulas, and that it moves pictures towards the reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from specimens import draw, randomise, second_camera, tiny_adaptation, tiny_preset, unit_images

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.diffusion.ddim import add_noise, linear_alpha_bar, predict_x0
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.diffusion.transfer import transfer_style
from nnunet_osasis.training.adaptation.adapt import adapt
from nnunet_osasis.training.adaptation.embedders import SemanticEmbedder
from nnunet_osasis.training.adaptation.losses import Anchors, LossWeights, channel_statistics, style_terms
from nnunet_osasis.training.adaptation.steps import Adaptation
from nnunet_osasis.training.pretrain import pretrain

SOURCES = unit_images(8)
REFERENCE = torch.from_numpy(second_camera(draw(99)))[None].float() / 127.5 - 1


class Pixels:
    """An embedder whose embedding is the image itself."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        return []

    def with_features(self, images: torch.Tensor, featured: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return images.flatten(1), []


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 0.0), (-1.0, 2.0)])
def test_directions_point_from_a_to_b_and_from_style_to_content(sign: float, expected: float) -> None:
    """In-domain: style to content as in A. Cross-domain: A to B as the style pair. Turned round, either is 2."""
    embed: Any = Pixels()
    style_a, style_b, content = SOURCES[:1], SOURCES[1:2] * 0.5, SOURCES[2:5]
    anchors = Anchors.of(style_a, style_b, embed)

    def term(name: str, decoded: torch.Tensor) -> torch.Tensor:
        weights = LossWeights(**{name: 1.0})
        return style_terms(weights, embed, anchors, style_b, content, embed(content), decoded)[name]

    assert term("in_domain", style_b + sign * (content - style_a)) == pytest.approx(expected, abs=1e-5)
    assert term("cross_domain", content + sign * (style_b - style_a)) == pytest.approx(expected, abs=1e-5)


def test_the_cycle_goes_through_both_decoders(stylizer: OSASISStylizer) -> None:
    """Eq. 11: ``|G(F(G(x))) - G(x)| + |F(G(F(y))) - F(y)|`` with ``G`` by ``D_B`` and ``F`` by the frozen ``D_A``."""
    model, level = stylizer.autoencoder, 120
    randomise(model)
    spn = StructurePreservingNetwork(in_channels=3, hidden_channels=(16, 32), time_dim=32)
    embed = SemanticEmbedder(model.semantic_encoder, SOURCES)
    config = tiny_adaptation(losses="paper", select_every=0)
    run = Adaptation(model, spn, embed, SOURCES, SOURCES[:1], REFERENCE, config)
    randomise(run.decoder)
    content = SOURCES[2:4]
    noise = torch.randn(content.shape, generator=torch.Generator().manual_seed(0))
    alpha_bar = linear_alpha_bar()[level]

    def moved(unet: Any, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        noisy, t = add_noise(images, noise, alpha_bar), torch.full((len(images),), level)
        return predict_x0(noisy, unet(noisy, t, model.semantic_encoder(images)), alpha_bar).clamp(-1, 1)

    def half(there: Any, back: Any, images: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        first = moved(there, images, noise)
        return (moved(there, moved(back, first, noise), noise) - first).abs().mean()

    with torch.no_grad():
        found = run.paper_terms(content, content, noise, level)["cycle"]
        d_a, d_b = model.unet, run.decoder
        expected = half(d_b, d_a, content, noise) + half(d_a, d_b, REFERENCE, noise[:1])
        torch.testing.assert_close(found, expected)
        one_sided = half(d_b, d_b, content, noise) + half(d_b, d_b, REFERENCE, noise[:1])
        assert abs(float(found - one_sided)) > 1e-3  # so that the decoders can be told apart here


def test_adaptation_moves_pictures_towards_the_reference(tmp_path: Path) -> None:
    """A few seconds of training bring the colors of decoded source images nearer to the reference's."""
    model = pretrain(SOURCES, tiny_preset(iterations=60, learning_rate=2e-3, ema_decay=0.9), work=tmp_path / "a")
    embed = SemanticEmbedder(model.semantic_encoder, SOURCES)
    config = tiny_adaptation(iterations=12, learning_rate=2e-3, spn_learning_rate=2e-3, ema_decay=0.5, select_every=0)
    spn = StructurePreservingNetwork(in_channels=3, hidden_channels=(16, 32), time_dim=32)
    style_a = unit_images(1, first=99)
    decoder, spn = adapt(model, spn, embed, SOURCES, style_a, REFERENCE, config, work=tmp_path / "b")
    encoder, unet = model.semantic_encoder, model.unet
    before = transfer_style(encoder, unet, unet, None, SOURCES, config.sampler)
    after = transfer_style(encoder, unet, decoder, spn, SOURCES, config.sampler)
    wanted = channel_statistics(REFERENCE) - channel_statistics(style_a)

    def left(pictures: torch.Tensor) -> float:
        return float((channel_statistics(pictures) - channel_statistics(SOURCES) - wanted).abs().mean())

    assert left(after) < 0.7 * left(before)
    shift = (channel_statistics(after) - channel_statistics(before)).mean(dim=0)
    assert float(torch.cosine_similarity(shift, wanted[0], dim=0)) > 0.5  # that way, and no other


def test_the_spn_learns_with_the_decoder(stylizer: OSASISStylizer, tmp_path: Path) -> None:
    spn = StructurePreservingNetwork(in_channels=3, hidden_channels=(16, 32), time_dim=32)
    embed = SemanticEmbedder(stylizer.autoencoder.semantic_encoder, SOURCES)
    config = replace(tiny_adaptation(iterations=2, ema_decay=0.0), select_every=0)
    _, trained = adapt(
        stylizer.autoencoder, spn, embed, SOURCES, SOURCES[:1], REFERENCE, config, work=tmp_path
    )  # fmt: skip
    assert float(trained.conv_out.weight.abs().max()) > 0  # it begins at zero
