"""What makes training fast or small changes nothing that is learned."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from specimens import randomise, tiny_preset, unit_images

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.compute import fused
from nnunet_osasis.training.adaptation.embedders import SemanticEmbedder
from nnunet_osasis.training.checkpoint import EMA, Checkpoint, TrainingState
from nnunet_osasis.training.loop import prefetched, recomputed, recomputes
from nnunet_osasis.training.pretrain import eps_loss, pretrain


def network(**changes: object) -> DiffusionAutoencoder:
    torch.manual_seed(0)
    return randomise(DiffusionAutoencoder(in_channels=3, **{**tiny_preset().model, **changes}))


def gradients(model: DiffusionAutoencoder, *, on: bool) -> tuple[list[torch.Tensor], int]:
    """Of one step, and the bytes that its forward pass kept for the backward pass outside of recomputed blocks."""
    torch.manual_seed(1)  # of dropout
    model.zero_grad()
    x0, t, kept = unit_images(2), torch.tensor([3, 700]), []
    with (
        recomputed([model], on=on),
        torch.autograd.graph.saved_tensors_hooks(lambda v: kept.append(v) or v, lambda v: v),
    ):
        loss = eps_loss(model, x0, t, torch.ones_like(x0))
        loss.backward()
    return [p.grad.clone() for p in model.parameters()], sum(v.nbytes for v in kept)


def test_recomputed_activations_give_the_same_gradients_and_are_not_kept() -> None:
    model = network(dropout=0.2).train()
    (plain, all_of_them), (again, few) = gradients(model, on=False), gradients(model, on=True)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    assert few < all_of_them / 3
    assert not any("forward" in vars(module) for module in model.modules())  # as it was


def test_activations_are_recomputed_from_256_px_or_on_demand() -> None:
    assert [recomputes("auto", side) for side in (64, 128, 256, 512)] == [False, False, True, True]
    assert recomputes("on", 64) and not recomputes("off", 512)
    with pytest.raises(OsasisError, match="recompute"):
        tiny_preset(recompute="maybe")


def test_a_run_goes_on_with_other_ways_of_running(tmp_path: Path) -> None:
    """Recomputing and compiling are no part of what a checkpoint belongs to; recomputed weights are the same bytes."""
    whole = pretrain(unit_images(8), tiny_preset(), work=tmp_path / "whole").state_dict()
    other = pretrain(unit_images(8), tiny_preset(recompute="on"), work=tmp_path / "other").state_dict()
    assert all(torch.equal(value, other[name]) for name, value in whole.items())
    again = pretrain(unit_images(8), tiny_preset(recompute="on"), work=tmp_path / "whole", resume=True).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(tmp_path: Path) -> None:
    """With the backend that only traces: a compiler is not on every machine."""
    plain = pretrain(unit_images(8), tiny_preset(iterations=2), work=tmp_path / "plain").state_dict()
    compiled = pretrain(unit_images(8), tiny_preset(iterations=2, compile="eager"), work=tmp_path / "c").state_dict()
    assert plain.keys() == compiled.keys()
    for name, value in plain.items():
        torch.testing.assert_close(value, compiled[name], atol=1e-5, rtol=1e-4, msg=name)
    with pytest.raises(OsasisError, match="compile"):
        tiny_preset(compile="fast")


def test_dropout_repeats_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunet_osasis.training import pretrain as module

    preset = tiny_preset(iterations=4)
    preset.model["dropout"] = 0.3
    whole = pretrain(unit_images(8), preset, work=tmp_path / "whole").state_dict()
    real = module.draw_batch

    def cut(images: torch.Tensor, config: object, iteration: int, timesteps: int) -> tuple:
        if iteration == 3:
            raise InterruptedError
        return real(images, config, iteration, timesteps)

    with monkeypatch.context() as patch:
        patch.setattr(module, "draw_batch", cut)
        with pytest.raises(InterruptedError):
            pretrain(unit_images(8), preset, work=tmp_path / "cut")
    torch.manual_seed(123)
    found = pretrain(unit_images(8), preset, work=tmp_path / "cut", resume=True).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in whole.items())


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_batches_made_ahead_come_in_order_with_their_errors(depth: int) -> None:
    def make(number: int) -> tuple[int, bool]:
        if number == 7:
            raise InterruptedError
        return number, threading.current_thread() is threading.main_thread()

    with prefetched(make, 20, depth=depth) as take:
        found = [take(number) for number in range(2, 7)]
        with pytest.raises(InterruptedError):
            take(7)
    assert [number for number, _ in found] == [2, 3, 4, 5, 6]
    assert all(in_main == (depth == 0) for _, in_main in found)


def test_one_pass_embeds_and_features_like_two() -> None:
    embed, shown = SemanticEmbedder(network().semantic_encoder, unit_images(4)), unit_images(3, first=7)
    with torch.no_grad():
        embedded, features = embed.with_features(shown, 1)
        torch.testing.assert_close(embedded, embed(shown))
        for found, alone in zip(features, embed.features(shown[:1]), strict=True):
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)
        assert embed.with_features(shown, 0)[1] == []


def test_averages_are_lent_and_given_back() -> None:
    module = StructurePreservingNetwork(**tiny_preset().spn)
    average = EMA(module, 0.9, "cpu")
    randomise(module)
    own = {name: value.clone() for name, value in module.state_dict().items()}
    with average.lent_to(module):
        assert all(torch.equal(v, average.weights[n]) for n, v in module.state_dict().items())
    assert all(torch.equal(value, own[name]) for name, value in module.state_dict().items())


def test_an_optimisers_state_comes_back_in_the_layout_of_its_weights(tmp_path: Path) -> None:
    """One fused kernel goes through both as they lie in memory: another order would mix up channels."""

    def trained(steps: range, *, load: bool) -> torch.nn.Conv2d:
        torch.manual_seed(0)
        net = torch.nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.1, fused=fused("cpu"))
        state = TrainingState("run", {"net": net}, optimizers={"adam": optimizer})
        checkpoint = Checkpoint(tmp_path / "c.safetensors", state)
        if load:
            checkpoint.load()
        for step in steps:
            optimizer.zero_grad()
            image = unit_images(1, first=step).to(memory_format=torch.channels_last)
            net(image).square().mean().backward()
            optimizer.step()
        checkpoint.save(steps.stop, done=False)
        return net

    whole = trained(range(4), load=False).weight
    trained(range(2), load=False)
    assert torch.equal(trained(range(2, 4), load=True).weight, whole)
