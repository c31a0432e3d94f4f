"""Stage 1: train the source domain's diffusion autoencoder ``D_A`` on unlabelled source images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch
from tqdm import tqdm

from nnunet_osasis.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion import add_noise, linear_alpha_bar
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.presets import Preset, PretrainConfig, as_json
from nnunet_osasis.storage import sha256_of_array, sha256_of_json
from nnunet_osasis.training import EMA, Checkpoint, Interruptible, RunLog, autocast, cosine, generator_for


def draw_batch(
    images: torch.Tensor, config: PretrainConfig, iteration: int, timesteps: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images ``(B, C, H, W)`` flipped at random, timesteps ``(B,)`` and noise of one iteration, from its seed."""
    generator = generator_for(config.seed, iteration)
    chosen = torch.randint(len(images), (config.batch_size,), generator=generator)
    x0 = images[chosen].float()
    if config.flip:
        mirrored = torch.rand(len(x0), generator=generator) < 0.5
        x0 = torch.where(mirrored[:, None, None, None], x0.flip(-1), x0)
    t = torch.randint(1, timesteps, (len(x0),), generator=generator)
    return x0, t, torch.randn(x0.shape, generator=generator)


def eps_loss(model: DiffusionAutoencoder, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the predicted noise: DiffAE's whole objective (``Enc`` learns through it)."""
    alpha_bar = linear_alpha_bar().to(x0.device)[t][:, None, None, None]
    return (model(add_noise(x0, noise, alpha_bar), t, x0).float() - noise).square().mean()


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
        work: folder for ``pretrain.safetensors`` (checkpoint) and ``pretrain.jsonl``.
        resume: go on from the checkpoint; the result equals an uninterrupted run's (CPU, same threads).
        on_grid: called every ``grid_every`` iterations with the averaged model.

    Raises:
        OsasisError: fewer than two images, a checkpoint of another run, or a loss that is not finite.
        KeyboardInterrupt: after the state has been saved.
    """
    config, size = preset.pretrain, preset.model["sample_size"]
    if len(images) < 2:
        raise OsasisError("Pretraining needs at least 2 images", found=len(images), remedy="Add source images.")
    torch.manual_seed(config.seed)
    model = DiffusionAutoencoder(in_channels=images.shape[1], **preset.model).to(device)
    average = EMA(model, config.ema_decay)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    identity = {
        "stage": "pretrain",
        "model": preset.model,
        "config": {k: v for k, v in as_json(config).items() if k not in ("checkpoint_every", "grid_every")},
        "images": sha256_of_array(images.numpy()),
        "size": size,
    }
    checkpoint = Checkpoint(work / "pretrain.safetensors", sha256_of_json(identity))
    states = ({"autoencoder": model}, {"autoencoder": average}, {"adamw": optimizer})
    start, done = checkpoint.load(*states) if resume else (0, False)
    if done:
        return _averaged(model, average)
    log = RunLog(work / "pretrain.jsonl", start=start, tensorboard=tensorboard and tensorboard / "pretrain")
    model.train()
    iteration = start
    bar = tqdm(total=config.iterations, initial=start, desc="pretrain", unit="it", dynamic_ncols=True)
    with Interruptible() as interrupted, closing(log), bar:
        while iteration < config.iterations:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * cosine(iteration, config.iterations)
            x0, t, noise = (v.to(device) for v in draw_batch(images, config, iteration, len(linear_alpha_bar())))
            with autocast(config.precision, device):
                loss = eps_loss(model, x0, t, noise)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
            if not torch.isfinite(loss) or not torch.isfinite(norm):
                raise OsasisError(
                    "The pretraining loss must stay finite",
                    found=f"{loss.item()} at iteration {iteration + 1}",
                    remedy="Lower the learning rate, or try --precision fp32 (--resume goes on from the checkpoint).",
                )
            optimizer.step()
            iteration += 1
            average.update(model, iteration)
            bar.update()
            if iteration % 10 == 0 or iteration == config.iterations:
                bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
                log.write(iteration, loss=loss.item(), grad_norm=norm.item(), lr=optimizer.param_groups[0]["lr"])
            # before the checkpoint: a run killed between the two would go on behind the picture
            if on_grid is not None and iteration % config.grid_every == 0:
                on_grid(iteration, _averaged(DiffusionAutoencoder.from_config(model.config).to(device), average))
            if iteration % config.checkpoint_every == 0 and iteration < config.iterations:
                checkpoint.save(iteration, *states, done=False)
            if interrupted():
                checkpoint.save(iteration, *states, done=False)
                raise KeyboardInterrupt
    checkpoint.save(iteration, *states, done=True)
    return _averaged(model, average)


def _averaged(model: DiffusionAutoencoder, average: EMA) -> DiffusionAutoencoder:
    model.load_state_dict(average.weights)
    return model.eval().requires_grad_(False)
