"""Style pairs, embedders and losses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from specimens import randomise, unit_images

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.stylizer.calibrator import Calibrator
from nnunet_osasis.training.adaptation.embedders import SemanticEmbedder, load_clip, make_embedder
from nnunet_osasis.training.adaptation.losses import (
    LOSSES,
    Anchors,
    LossWeights,
    channel_statistics,
    cycle_loss,
    direction_loss,
    perceptual_loss,
    style_terms,
)
from nnunet_osasis.training.adaptation.recipes import RECIPES, AdaptConfig
from nnunet_osasis.training.style_pair import PAIR_MAKERS, StylePairConfig, make_style_pair

IMAGES = unit_images(4)


def drawn_calibrator() -> Calibrator:
    """A calibrator with something to say, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return randomise(Calibrator(3, sample_size=32)).eval()


@pytest.fixture
def embed(stylizer: OSASISStylizer) -> SemanticEmbedder:
    return SemanticEmbedder(stylizer.autoencoder.semantic_encoder, unit_images(8))


@pytest.mark.parametrize("maker", PAIR_MAKERS)
def test_every_pair_maker_gives_images_in_range_and_repeats(stylizer: OSASISStylizer, maker: str) -> None:
    config = StylePairConfig(maker=maker, samples=3, steps=4)
    options = {"seed": 1, "counterpart": IMAGES[1:2], "calibrator": drawn_calibrator()}
    pair, again = (make_style_pair(stylizer.autoencoder, IMAGES[:1], IMAGES, config, **options) for _ in range(2))
    first = pair.counterparts
    assert torch.equal(first, again.counterparts)
    assert torch.equal(pair.reference, IMAGES[:1])
    assert pair.aligned == (maker != "nearest")
    assert first.shape == ((1 if maker == "file" else 3), 3, 32, 32)
    assert first.abs().max() <= 1
    if maker == "nearest":
        assert torch.equal(first[:1], IMAGES[:1])  # the reference is among the sources here
        assert all(any(torch.equal(one, source) for source in IMAGES) for one in first)  # real images, untouched
        assert len(first.flatten(1).unique(dim=0)) == 3
    if maker == "file":
        assert torch.equal(first, IMAGES[1:2])
    if maker in ("prealigned_sdedit", "sdedit", "calibrator"):
        other = make_style_pair(stylizer.autoencoder, IMAGES[:1], IMAGES, config, **options | {"seed": 2})
        assert not torch.equal(first, other.counterparts)


def test_the_nearest_images_are_at_most_all_there_are(stylizer: OSASISStylizer) -> None:
    config = StylePairConfig(maker="nearest", samples=9)
    assert len(make_style_pair(stylizer.autoencoder, IMAGES[:1], IMAGES, config).counterparts) == len(IMAGES)


def test_a_pair_from_the_calibrator_depends_on_its_way_back_alone(stylizer: OSASISStylizer) -> None:
    config = StylePairConfig(maker="calibrator", samples=2, steps=4)

    def make(config: StylePairConfig, calibrator: Calibrator | None) -> torch.Tensor:
        return make_style_pair(stylizer.autoencoder, IMAGES[:1], IMAGES, config, calibrator=calibrator).counterparts

    untrained, plain = make(config, Calibrator(3)), make(replace(config, maker="sdedit"), None)
    torch.testing.assert_close(untrained, plain, atol=1e-5, rtol=0)  # the identity: SDEdit from y itself
    forth_only = Calibrator(3)
    with torch.no_grad():
        bias = forth_only.head[-1].bias.view(2, -1)
        bias[0] = 0.5
    found = make(config, forth_only)
    assert torch.equal(found, untrained)
    with torch.no_grad():
        bias[1] = 0.5
    assert not torch.equal(make(config, forth_only), found)


def test_a_pair_from_the_calibrator_needs_one(stylizer: OSASISStylizer) -> None:
    with pytest.raises(OsasisError, match="--calibrator-iterations"):
        make_style_pair(stylizer.autoencoder, IMAGES[:1], IMAGES, StylePairConfig(maker="calibrator"))


def test_a_pair_from_file_needs_the_file(stylizer: OSASISStylizer) -> None:
    with pytest.raises(OsasisError, match="--style-source-image"):
        make_style_pair(stylizer.autoencoder, IMAGES[:1], IMAGES, StylePairConfig(maker="file"))


def test_embedder_is_frozen_but_lets_gradients_through(embed: SemanticEmbedder) -> None:
    images = IMAGES.clone().requires_grad_()
    embed(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in embed.parameters())


def test_perceptual_features_have_unit_norm_per_pixel(embed: SemanticEmbedder) -> None:
    for feature in embed.features(IMAGES):
        torch.testing.assert_close(feature.norm(dim=1), torch.ones_like(feature[:, 0]), atol=1e-4, rtol=1e-4)
    assert perceptual_loss(embed.features(IMAGES), embed.features(IMAGES)) == 0


def test_direction_loss_is_one_minus_cosine() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert direction_loss(a, 3 * a) == pytest.approx(0)
    assert direction_loss(a, -a) == pytest.approx(2)
    assert direction_loss(a, a.flip(1)) == pytest.approx(1)


def test_recipes_hold_the_published_weights() -> None:
    osasis = LOSSES["osasis"]
    assert (osasis.cross_domain, osasis.in_domain, osasis.embedding, osasis.l1, osasis.perceptual) == (
        1,
        0.5,
        30,
        10,
        10,
    )
    assert osasis.statistics == 0
    assert {n for n, w in vars(LOSSES["paper"]).items() if w} == {"adversarial", "cycle", "spn"}

    for recipe in RECIPES.values():  # eqs. 10-13 alone: our own term only where it is asked for by name
        weights = replace(recipe, losses="paper").weights()
        assert {n for n, w in vars(weights).items() if w} == {"adversarial", "cycle", "spn"}
    assert AdaptConfig().weights().statistics == 3 and RECIPES["osasis"].weights().statistics == 0
    assert AdaptConfig(losses="paper", statistics=2.0).weights().statistics == 2


def test_the_published_recipe_takes_the_published_steps() -> None:
    """The reference code decodes in 10 optimizer steps (from timestep 450) and applies 25 (from 480)."""
    training = RECIPES["osasis"].sampler
    applied = replace(training, decode_steps=training.encode_steps)
    assert len(training.decode_grid()) - 1 == 10 and training.decode_grid()[-1] == 450
    assert len(applied.decode_grid()) - 1 == 25 and applied.decode_grid()[-1] == 480


def test_terms_vanish_where_the_decoder_is_perfect(embed: SemanticEmbedder) -> None:
    """Were content and style the same image, the decoded pair would satisfy every term."""
    style_a, style_b = IMAGES[:1], IMAGES[:1] * 0.5 + 0.2
    anchors = Anchors.of(style_a, style_b, embed)
    every = LossWeights(*[1.0] * 6, adversarial=1.0)
    terms = style_terms(every, embed, anchors, style_b, style_a, embed(style_a), style_b)
    for name in ("cross_domain", "embedding", "l1", "perceptual", "statistics", "adversarial"):
        assert terms[name] == pytest.approx(0, abs=1e-5), name


def test_terms_without_weight_are_not_computed(embed: SemanticEmbedder) -> None:
    anchors = Anchors.of(IMAGES[:1], IMAGES[1:2], embed)
    found = style_terms(LossWeights(l1=1.0), embed, anchors, IMAGES[:1], IMAGES, embed(IMAGES), IMAGES)
    assert set(found) == {"l1"}


def test_channel_statistics_are_means_and_deviations() -> None:
    found = channel_statistics(IMAGES)
    torch.testing.assert_close(found[:, 0], IMAGES[:, 0].mean(dim=(1, 2)))
    torch.testing.assert_close(found[:, 3], IMAGES[:, 0].flatten(1).std(dim=1))


def test_cycle_loss_is_zero_for_inverse_transports_and_not_otherwise() -> None:
    forward, backward = lambda x: 2 * x, lambda y: y / 2
    assert cycle_loss(forward, backward, IMAGES, IMAGES[:1]) == 0
    assert cycle_loss(forward, lambda y: y, IMAGES, IMAGES[:1]) > 0


def test_clip_loads_from_a_local_folder_and_embeds(stylizer: OSASISStylizer, tmp_path: Path) -> None:
    """A tiny open_clip model saved the way open_clip saves to a hub: nothing is downloaded."""
    import json

    import open_clip
    from safetensors.torch import save_file

    vision = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    model = open_clip.CLIP(**config)
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    normalisation = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]}
    whole = {"model_cfg": config, "preprocess_cfg": normalisation}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(whole))
    clip = make_embedder(str(tmp_path), stylizer.autoencoder.semantic_encoder, IMAGES)
    assert clip.name == "clip"
    found = clip(IMAGES)
    assert found.shape == (4, 16)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    grey = load_clip(tmp_path, stylizer.autoencoder.semantic_encoder)(IMAGES[:, :1])
    assert grey.shape == (4, 16)
    with pytest.raises(OsasisError, match="1 or 3 channels"):
        make_embedder(str(tmp_path), stylizer.autoencoder.semantic_encoder, unit_images(1, channels=2))


def test_unknown_clip_names_are_refused(stylizer: OSASISStylizer) -> None:
    with pytest.raises(OsasisError, match="open_clip knows"):
        load_clip("ViT-Nothing:never", stylizer.autoencoder.semantic_encoder)
