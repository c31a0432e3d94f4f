"""Long trainings can be interrupted and continue to the same weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from specimens import build_tiny, tiny_preset, unit_images

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.diffusion.ddim import linear_alpha_bar, training_alpha_bar
from nnunet_osasis.diffusion.sampler import SamplerConfig, decode_images, encode_images
from nnunet_osasis.training import pretrain as pretraining
from nnunet_osasis.training.adaptation.recipes import RECIPES, SAMPLER
from nnunet_osasis.training.checkpoint import EMA
from nnunet_osasis.training.loop import Interruptible, cosine
from nnunet_osasis.training.pretrain import draw_batch, pretrain


def weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def test_pretraining_learns(tmp_path: Path) -> None:
    shown: list[tuple[int, bool]] = []
    preset = tiny_preset(iterations=50, learning_rate=2e-3, grid_every=20)
    model = pretrain(
        unit_images(8), preset, work=tmp_path, on_grid=lambda iteration, seen: shown.append((iteration, seen.training))
    )
    assert shown == [(20, False), (40, False)]
    rows = [json.loads(line) for line in (tmp_path / "pretrain.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert not model.training


class Stop(Exception):
    """Stands for a power cut."""


@pytest.mark.parametrize("stop_at", [3, 5])
def test_resumed_pretraining_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    images, preset = unit_images(8), tiny_preset()
    whole = pretrain(images, preset, work=tmp_path / "whole")

    def cut(images: torch.Tensor, config: object, iteration: int, timesteps: int) -> tuple:
        if iteration == stop_at:
            raise Stop
        return draw_batch(images, config, iteration, timesteps)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "draw_batch", cut)
        with pytest.raises(Stop):
            pretrain(images, preset, work=tmp_path / "cut")
    resumed = pretrain(images, preset, work=tmp_path / "cut", resume=True)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    logs = [[json.loads(s)["iteration"] for s in (tmp_path / d / "pretrain.jsonl").open()] for d in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_a_build_cut_during_adaptation_resumes_to_the_same_stylizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stylizer_folder: Path
) -> None:
    from nnunet_osasis.training.adaptation.steps import Adaptation

    real = Adaptation.iterate

    def cut(self: Adaptation, content: torch.Tensor, iteration: int) -> dict:
        if iteration == 1:
            raise Stop
        return real(self, content, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(Adaptation, "iterate", cut)
        with pytest.raises(Stop):
            build_tiny(tmp_path / "s")
    assert not OSASISStylizer.from_pretrained(tmp_path / "s").has_networks
    with pytest.raises(OsasisError, match="--resume"):
        build_tiny(tmp_path / "s")
    build_tiny(tmp_path / "s", resume=True)
    for name in ("stylizer.json", "decoder/diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "s" / name).read_bytes() == (stylizer_folder / name).read_bytes()
    assert not list((tmp_path / "s").rglob("pretrain.safetensors"))


def test_resuming_a_finished_build_changes_nothing(tmp_path: Path, stylizer_folder: Path) -> None:
    build_tiny(tmp_path / "s")
    before = (tmp_path / "s/stylizer.json").stat().st_mtime_ns
    build_tiny(tmp_path / "s", resume=True)
    assert (tmp_path / "s/stylizer.json").stat().st_mtime_ns == before
    with pytest.raises(OsasisError, match="--overwrite"):
        build_tiny(tmp_path / "s", resume=True, learning_rate=1e-3)


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    pretrain(unit_images(8), tiny_preset(), work=tmp_path)
    with pytest.raises(OsasisError, match="same images and settings"):
        pretrain(unit_images(8), tiny_preset(learning_rate=1e-3), work=tmp_path, resume=True)
    with pytest.raises(OsasisError, match="same images and settings"):
        pretrain(unit_images(7), tiny_preset(), work=tmp_path, resume=True)


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes | None) -> None:
    pretrain(unit_images(8), tiny_preset(), work=tmp_path)
    path = tmp_path / "pretrain.safetensors"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(OsasisError, match="whole"):
        pretrain(unit_images(8), tiny_preset(), work=tmp_path, resume=True)


def test_a_loss_that_explodes_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(OsasisError, match="finite"):
        pretrain(unit_images(8), tiny_preset(learning_rate=9.9, grad_clip=1e30, iterations=20), work=tmp_path)


def test_batches_depend_on_seed_and_iteration_alone() -> None:
    config = tiny_preset().pretrain
    first, again, other = (draw_batch(unit_images(8), config, i, 1000) for i in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[2], other[2])


@pytest.mark.parametrize("config", [SamplerConfig(), SAMPLER, RECIPES["osasis"].sampler, SamplerConfig(t0=999)])
def test_pretraining_shows_every_level_that_a_transfer_asks_for(config: SamplerConfig) -> None:
    settings, asked = replace(tiny_preset().pretrain, batch_size=2000), set[int]()

    def unet(x: torch.Tensor, t: torch.Tensor, *codes: object) -> torch.Tensor:
        asked.update(t.tolist())
        return x

    images = unit_images(1)
    decode_images(unet, encode_images(unet, images, None, config), None, config)
    shown = set[int]().union(*(draw_batch(images, settings, i, 1000)[1].tolist() for i in range(8)))
    assert 0 in asked and asked <= shown
    alpha_bar = training_alpha_bar()
    assert alpha_bar[0] < 1  # a clean image alone has no noise to learn from
    assert (alpha_bar.diff() < 0).all() and torch.equal(alpha_bar[1:], linear_alpha_bar()[1:])


def test_ema_warms_up_and_follows() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(0.0)
        ema = EMA(module, 0.9)
        module.weight.fill_(1.0)
    ema.update(module, 0)
    assert ema.weights["weight"].item() == pytest.approx(0.9)  # decay 0.1 at the start
    ema.update(module, 10_000)
    assert ema.weights["weight"].item() == pytest.approx(0.91)


def test_cosine_falls_from_one_to_zero() -> None:
    assert cosine(0, 10) == 1
    assert cosine(10, 10) == pytest.approx(0)
    assert cosine(5, 10) == pytest.approx(0.5)


def test_ctrl_c_is_a_question_between_iterations() -> None:
    import os
    import signal

    with Interruptible() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGINT)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
