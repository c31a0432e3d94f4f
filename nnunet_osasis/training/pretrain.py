"""Pretraining: the source domain's diffusion autoencoder ``D_A`` learns from unlabeled source images."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.ddim import add_noise, training_alpha_bar
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime import distributed as processes
from nnunet_osasis.runtime.compute import autocast, fused, generator_for, lay_out
from nnunet_osasis.runtime.records import as_json
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_json
from nnunet_osasis.training.checkpoint import EMA, TrainingState
from nnunet_osasis.training.loop import HOW, Values, cosine, fit, prefetched, recomputed, recomputes
from nnunet_osasis.training.presets import Preset, PretrainConfig

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def draw_batch(images: torch.Tensor, config: PretrainConfig, iteration: int, timesteps: int) -> Batch:
    """Images ``(B, C, H, W)`` flipped at random, timesteps ``(B,)`` and noise of one iteration, from its seed."""
    generator = generator_for(config.seed, iteration)
    chosen = torch.randint(len(images), (config.batch_size,), generator=generator)
    x0 = images[chosen].float()
    if config.flip:
        mirrored = torch.rand(len(x0), generator=generator) < 0.5
        x0 = torch.where(mirrored[:, None, None, None], x0.flip(-1), x0)
    t = torch.randint(timesteps, (len(x0),), generator=generator)
    return x0, t, torch.randn(x0.shape, generator=generator)


def eps_loss(
    model: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    x0: torch.Tensor,
    t: torch.Tensor,
    noise: torch.Tensor,
    alpha_bar: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean squared error of the predicted noise: DiffAE's whole objective (``Enc`` learns through it)."""
    levels = (training_alpha_bar().to(x0.device) if alpha_bar is None else alpha_bar)[t][:, None, None, None]
    return (model(add_noise(x0, noise, levels), t, x0).float() - noise).square().mean()


class PretrainSteps:
    """One process's part of the training steps.

    Args:
        model: ``D_A``, the same in all processes.
        images: source images ``(N, C, S, S)`` in [-1, 1].
        preset: network size and training settings.
        device: where to train.
    """

    def __init__(self, model: DiffusionAutoencoder, images: torch.Tensor, preset: Preset, device: str) -> None:
        self.model, self.images, self.config, self.device = model, images, preset.pretrain, device
        self.group = processes.current()
        self.rows = self.group.rows(self.config.batch_size, what="The batch (--batch-size)")
        self.share = (self.rows.stop - self.rows.start) / self.config.batch_size
        self.drops = preset.model["dropout"] > 0
        self.alpha_bar = training_alpha_bar().to(device)
        self.run = model if self.config.compile == "off" else torch.compile(model, backend=self.config.compile)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay, fused=fused(device)
        )

    def draw(self, iteration: int) -> Batch:
        """This process's rows of the iteration's batch, where they can be copied to the device from."""
        batch = draw_batch(self.images, self.config, iteration, len(self.alpha_bar))
        x0, t, noise = (v[self.rows] for v in batch)
        if torch.device(self.device).type == "cuda":
            return x0.pin_memory(), t.pin_memory(), noise.pin_memory()
        return x0, t, noise

    def step(self, batch: Batch, iteration: int) -> Values:
        """One optimizer step; returns ``loss`` and ``grad_norm`` of the whole batch, on the device, and ``lr``."""
        if self.drops:  # dropout has to repeat as well, and to differ between processes
            seed = generator_for(self.config.seed, iteration, stream=5).initial_seed()
            torch.manual_seed((seed + self.group.index * 0x9E3779B97F4A7C15) % 2**63)
        rate = self.config.learning_rate * cosine(iteration, self.config.iterations)
        self.optimizer.param_groups[0]["lr"] = rate
        x0, t, noise = (v.to(self.device, non_blocking=True) for v in batch)
        with autocast(self.config.precision, self.device):
            loss = eps_loss(self.run, x0, t, noise, self.alpha_bar) * self.share
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.group.sum_gradients([self.model])
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.optimizer.step()
        whole = loss.detach()
        self.group.sum([whole])
        return {"loss": whole, "grad_norm": norm.detach(), "lr": rate}


def pretrain(
    images: torch.Tensor,
    preset: Preset,
    *,
    work: Path,
    device: str = "cpu",
    resume: bool = False,
    tensorboard: Path | None = None,
    on_grid: Callable[[int, DiffusionAutoencoder], None] | None = None,
) -> DiffusionAutoencoder:
    """Train ``D_A`` and return its averaged weights, in eval mode on ``device``.

    Several processes (see ``distributed.joined``) share every batch; without dropout the result is that of one, up to
    the order of sums.

    Args:
        images: source images ``(N, C, S, S)`` in [-1, 1].
        preset: network size and training settings.
        work: folder of ``pretrain.safetensors`` and ``pretrain.jsonl``, written by the main process.
        device: where to train.
        resume: continue from the checkpoint to the same weights (CPU).
        tensorboard: folder of TensorBoard events; None writes none.
        on_grid: called with the iteration and the averaged model every ``grid_every`` iterations.

    Raises:
        OsasisError: fewer than two images, a batch smaller than the number of processes, a checkpoint of another run,
            or a loss that is not finite.
        KeyboardInterrupt: after the state has been saved.
    """
    config, on_cpu = preset.pretrain, torch.device(device).type == "cpu"
    if len(images) < 2:
        raise OsasisError("Pretraining needs at least 2 images", found=len(images), remedy="Add source images.")
    torch.manual_seed(config.seed)
    model = DiffusionAutoencoder(in_channels=images.shape[1], **preset.model)
    lay_out(model, device)
    average, steps = EMA(model, config.ema_decay), PretrainSteps(model, images, preset, device)
    identity = {
        "stage": "pretrain",
        "model": preset.model,
        "config": {key: value for key, value in as_json(config).items() if key not in HOW},
        "images": sha256_of_array(images.numpy()),
    }
    state = TrainingState(
        sha256_of_json(identity), {"autoencoder": model}, {"autoencoder": average}, {"adamw": steps.optimizer}
    )

    def show(iteration: int) -> None:
        if on_grid is not None and steps.group.is_main and iteration % config.grid_every == 0:
            on_grid(iteration, _averaged(DiffusionAutoencoder.from_config(model.config).to(device), average))

    model.train()
    with (
        prefetched(steps.draw, config.iterations, depth=0 if on_cpu else 2) as draw,
        recomputed([model], on=recomputes(config.recompute, images.shape[-1])),
    ):

        def step(iteration: int) -> Values:
            values = steps.step(draw(iteration), iteration)
            average.update(model, iteration + 1)
            return values

        fit(
            "pretrain", step, state, iterations=config.iterations, work=work, resume=resume,
            save_every=config.checkpoint_every, look_every=1 if on_cpu else 5, group=steps.group, on_iteration=show,
            tensorboard=tensorboard,
            remedy="Start again with --overwrite and a lower --learning-rate, or with --precision fp32.",
        )  # fmt: skip
    return _averaged(model, average)


def _averaged(model: DiffusionAutoencoder, average: EMA) -> DiffusionAutoencoder:
    model.load_state_dict(average.weights)
    return model.eval().requires_grad_(False)


def seconds_per_step(preset: Preset, *, channels: int, device: str, warm_up: int = 1, timed: int = 2) -> float:
    """Time a few pretraining steps on random images.

    The answer depends on the machine, so a run that must repeat bit for bit names its iterations instead. All
    processes call this together and get the main one's answer.
    """
    size = preset.model["sample_size"]
    with torch.random.fork_rng():
        model = DiffusionAutoencoder(in_channels=channels, **preset.model)
        lay_out(model, device)
        steps = PretrainSteps(model, torch.rand(4, channels, size, size) * 2 - 1, preset, device)
        began = time.perf_counter()
        with recomputed([model], on=recomputes(preset.pretrain.recompute, size)):
            for step in range(warm_up + timed):
                if step == warm_up:
                    began = time.perf_counter()
                float(steps.step(steps.draw(step), step)["loss"])  # waits for the device
    seconds = (time.perf_counter() - began) / timed
    return processes.current().from_main(lambda: seconds)
