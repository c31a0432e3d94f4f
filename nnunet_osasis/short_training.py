"""The training loop of the small networks (calibrator, student): one cycle of the rate, resumable, one log."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Protocol

import torch
from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.run_log import RunLog
from nnunet_osasis.runtime.compute import generator_for
from nnunet_osasis.training import Checkpoint, Interruptible


class ShortConfig(Protocol):
    """What both configurations say about their training."""

    @property
    def iterations(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def checkpoint_every(self) -> int: ...


def train_short(
    network: torch.nn.Module,
    losses: Callable[[torch.Generator], dict[str, torch.Tensor]],
    config: ShortConfig,
    *,
    name: str,
    title: str,
    work: Path,
    identity: str,
    stream: int,
    without: str,
    resume: bool = False,
) -> None:
    """Train ``network`` in place with AdamW, gradients clipped to norm 1; left in eval mode, without gradients.

    Args:
        losses: from the iteration's generator, the scalar ``loss`` and what else is to be logged.
        name: of the checkpoint ``<name>.safetensors`` and the log ``<name>.jsonl`` in ``work``; ``resume`` goes on with
            them to the same weights. title: of the bar. identity: SHA-256 of all that decides the training.
        stream: of the random numbers. without: the option that leaves this network out, for the error.

    Raises:
        OsasisError: a loss that is not finite, or a checkpoint of another training.
        KeyboardInterrupt: after the state has been saved.
    """
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    checkpoint = Checkpoint(work / f"{name}.safetensors", identity)
    states: tuple[dict, dict, dict] = ({name: network}, {}, {"adamw": optimizer})
    start, done = checkpoint.load(*states) if resume else (0, False)
    if not done:
        log = RunLog(work / f"{name}.jsonl", start=start)
        bar = tqdm(total=config.iterations, initial=start, desc=title, unit="it", dynamic_ncols=True)
        with Interruptible() as interrupted, closing(log), bar:
            for iteration in range(start, config.iterations):
                optimizer.param_groups[0]["lr"] = config.learning_rate * one_cycle(iteration, config.iterations)
                found = losses(generator_for(config.seed, iteration, stream=stream))
                loss = found["loss"]
                if not torch.isfinite(loss):
                    raise OsasisError(
                        f"The {name}'s loss must stay finite",
                        found=f"{loss.item()} in iteration {iteration + 1}",
                        remedy=f"Check the source images, or leave it out with {without}.",
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                bar.update()
                last = iteration + 1 == config.iterations
                if last or (iteration + 1) % 10 == 0:
                    log.write(iteration + 1, **{key: one.item() for key, one in found.items()}, norm=norm.item())
                    bar.set_postfix(loss=f"{loss.item():.4g}", refresh=False)
                if last or interrupted() or (iteration + 1) % config.checkpoint_every == 0:
                    checkpoint.save(iteration + 1, *states, done=last)
                if interrupted() and not last:
                    raise KeyboardInterrupt
    network.eval().requires_grad_(False)


def one_cycle(iteration: int, iterations: int, *, warm: float = 0.3) -> float:
    """Rate factor: a cosine up from 1/25 over the first ``warm`` share, a cosine down to nearly 0 after it."""
    position = (iteration + 1) / iterations
    if position < warm:
        return 1 / 25 + (1 - 1 / 25) * 0.5 * (1 - math.cos(math.pi * position / warm))
    return 1e-4 + (1 - 1e-4) * 0.5 * (1 + math.cos(math.pi * (position - warm) / (1 - warm)))
