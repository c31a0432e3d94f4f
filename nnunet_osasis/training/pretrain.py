"""Stage 1: train the source domain's diffusion autoencoder ``D_A`` on unlabelled source images.

How many training steps fit a time budget on this machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch
from tqdm import tqdm

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.ddim import add_noise, linear_alpha_bar
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime import distributed as processes
from nnunet_osasis.runtime.compute import autocast, fused, generator_for, lay_out
from nnunet_osasis.runtime.records import as_json
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_json
from nnunet_osasis.training.checkpoint import EMA, Checkpoint
from nnunet_osasis.training.loop import Interruptible, RunLog, ahead, cosine, recomputed, recomputes
from nnunet_osasis.training.presets import HOW, Preset, PretrainConfig

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def draw_batch(images: torch.Tensor, config: PretrainConfig, iteration: int, timesteps: int) -> Batch:
    """Images ``(B, C, H, W)`` flipped at random, timesteps ``(B,)`` and noise of one iteration, from its seed."""
    generator = generator_for(config.seed, iteration)
    chosen = torch.randint(len(images), (config.batch_size,), generator=generator)
    x0 = images[chosen].float()
    if config.flip:
        mirrored = torch.rand(len(x0), generator=generator) < 0.5
        x0 = torch.where(mirrored[:, None, None, None], x0.flip(-1), x0)
    t = torch.randint(1, timesteps, (len(x0),), generator=generator)
    return x0, t, torch.randn(x0.shape, generator=generator)


def eps_loss(
    model: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    x0: torch.Tensor,
    t: torch.Tensor,
    noise: torch.Tensor,
    alpha_bar: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean squared error of the predicted noise: DiffAE's whole objective (``Enc`` learns through it)."""
    levels = (linear_alpha_bar().to(x0.device) if alpha_bar is None else alpha_bar)[t][:, None, None, None]
    return (model(add_noise(x0, noise, levels), t, x0).float() - noise).square().mean()


class PretrainSteps:
    """One process's part of the steps: its rows of every batch, and the weights that all of them share."""

    def __init__(self, model: DiffusionAutoencoder, images: torch.Tensor, preset: Preset, device: str) -> None:
        self.model, self.images, self.config, self.device = model, images, preset.pretrain, device
        self.group = processes.current()
        self.rows = self.group.rows(self.config.batch_size, what="The batch (--batch-size)")
        self.share = (self.rows.stop - self.rows.start) / self.config.batch_size
        self.drops = preset.model["dropout"] > 0
        self.alpha_bar = linear_alpha_bar().to(device)
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

    def step(self, batch: Batch, iteration: int) -> torch.Tensor:
        """One optimiser step; returns ``(loss, gradient norm)``, both of the whole batch, on the device."""
        if self.drops:  # what is dropped has to repeat as well; every process drops something else
            seed = generator_for(self.config.seed, iteration, stream=5).initial_seed()
            torch.manual_seed((seed + self.group.index * 0x9E3779B97F4A7C15) % 2**63)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * cosine(iteration, self.config.iterations)
        x0, t, noise = (v.to(self.device, non_blocking=True) for v in batch)
        with autocast(self.config.precision, self.device):
            loss = eps_loss(self.run, x0, t, noise, self.alpha_bar) * self.share
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.group.sum_gradients([self.model])
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.optimizer.step()
        return torch.stack([loss.detach(), norm.detach()])


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

    Args:
        images: source images ``(N, C, S, S)`` in [-1, 1].
        work: folder for ``pretrain.safetensors`` (checkpoint) and ``pretrain.jsonl``, written by the main process.
        resume: go on from the checkpoint; the result equals an uninterrupted run's (CPU, same threads), and up to
            the order of sums also with another number of processes.
        on_grid: called every ``grid_every`` iterations with the averaged model, in the main process.

    Several processes (see ``processes.joined``) work on one batch together; without dropout the result is that of one.

    Raises:
        OsasisError: fewer than two images, a batch smaller than the number of processes, a checkpoint of another run,
            or a loss that is not finite.
        KeyboardInterrupt: after the state has been saved.
    """
    config, size = preset.pretrain, preset.model["sample_size"]
    if len(images) < 2:
        raise OsasisError("Pretraining needs at least 2 images", found=len(images), remedy="Add source images.")
    group = processes.current()
    torch.manual_seed(config.seed)
    model = DiffusionAutoencoder(in_channels=images.shape[1], **preset.model)
    lay_out(model, device)
    average = EMA(model, config.ema_decay)
    training = PretrainSteps(model, images, preset, device)
    identity = {
        "stage": "pretrain",
        "model": preset.model,
        "config": {k: v for k, v in as_json(config).items() if k not in HOW},
        "images": sha256_of_array(images.numpy()),
        "size": size,
    }
    checkpoint = Checkpoint(work / "pretrain.safetensors", sha256_of_json(identity), group)
    states = ({"autoencoder": model}, {"autoencoder": average}, {"adamw": training.optimizer})
    start, done = checkpoint.load(*states) if resume else (0, False)
    group.take_over([model])  # processors of another make may round another way
    if done:
        return _averaged(model, average)
    log = RunLog(
        work / "pretrain.jsonl", start=start, tensorboard=tensorboard and tensorboard / "pretrain", group=group
    )
    model.train()
    on_cpu = torch.device(device).type == "cpu"
    # a look at the loss makes the CPU wait for the device, which then waits for the CPU
    looks = 1 if on_cpu else 5
    batches = ahead(training.draw, range(start, config.iterations), depth=0 if on_cpu else 2)
    bar = tqdm(
        total=config.iterations, initial=start, desc="pretrain", unit="it", dynamic_ncols=True,
        disable=not group.is_main,
    )  # fmt: skip
    seen = torch.zeros(2, device=device)
    with (
        Interruptible() as interrupted, closing(log), closing(batches), bar,
        recomputed([model], on=recomputes(config.recompute, size)),
    ):  # fmt: skip
        for iteration, batch in enumerate(batches, start=start + 1):
            found = training.step(batch, iteration - 1)
            average.update(model, iteration)
            bar.update()
            last = iteration == config.iterations
            seen = torch.where(torch.isfinite(seen), found, seen)  # what is not finite stays
            logged, drawn = (iteration % n == 0 for n in (10, config.grid_every))
            saved = iteration % config.checkpoint_every == 0
            if not (iteration % looks == 0 or logged or drawn or saved or last):
                continue
            told = torch.cat([seen[:1], seen.new_tensor([float(interrupted())])])
            group.sum([told])
            (loss, asked), norm = told.tolist(), seen[1].item()
            _check(loss, norm, iteration)
            if logged or last:
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                log.write(iteration, loss=loss, grad_norm=norm, lr=training.optimizer.param_groups[0]["lr"])
            # before the checkpoint: a run killed between the two would go on behind the picture
            if on_grid is not None and drawn and group.is_main:
                on_grid(iteration, _averaged(DiffusionAutoencoder.from_config(model.config).to(device), average))
            if (saved and not last) or asked:
                checkpoint.save(iteration, *states, done=False)
            if asked:
                raise KeyboardInterrupt
    checkpoint.save(config.iterations, *states, done=True)
    return _averaged(model, average)


def _check(loss: float, norm: float, iteration: int) -> None:
    """Raise ``OsasisError`` where the run has gone astray; all processes see the same numbers."""
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise OsasisError(
            "The pretraining loss must stay finite",
            found=f"loss {loss}, gradient norm {norm} at iteration {iteration}",
            remedy="Lower the learning rate, or try --precision fp32 (--resume goes on from the checkpoint).",
        )


def _averaged(model: DiffusionAutoencoder, average: EMA) -> DiffusionAutoencoder:
    model.load_state_dict(average.weights)
    return model.eval().requires_grad_(False)


def steps_for(preset: Preset, minutes: float, *, channels: int, device: str, warm_up: int = 3, timed: int = 5) -> int:
    """Measure a few pretraining steps on random images and return how many fit ``minutes`` (at least 1).

    The answer depends on the machine, so a run that must repeat bit for bit names its iterations instead. Several
    processes call this together, and all get the main one's answer.
    """
    size = preset.model["sample_size"]
    model = DiffusionAutoencoder(in_channels=channels, **preset.model)
    lay_out(model, device)
    steps = PretrainSteps(model, torch.rand(4, channels, size, size) * 2 - 1, preset, device)
    began = time.perf_counter()
    with recomputed([model], on=recomputes(preset.pretrain.recompute, size)):
        for step in range(warm_up + timed):
            if step == warm_up:
                began = time.perf_counter()
            steps.step(steps.draw(step), step).tolist()
    found = max(1, int(minutes * 60 / ((time.perf_counter() - began) / timed)))
    return processes.current().from_main(lambda: found)
