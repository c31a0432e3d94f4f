"""The training loop of the small networks (calibrator, student): one cycle of the rate, resumable, one log.

What keeps a device busy: one optimiser kernel, the memory layout it likes, batches that are ready, less memory.

The log of a training: one JSON object per line, and TensorBoard on request.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from nnunet_osasis.diffusion.autoencoder import EncoderBlock
from nnunet_osasis.diffusion.spn import PixelBlock
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.compute import generator_for
from nnunet_osasis.runtime.distributed import ALONE, Processes
from nnunet_osasis.runtime.records import append_jsonl, read_jsonl, write_jsonl
from nnunet_osasis.runtime.storage import ensure_writable
from nnunet_osasis.training.checkpoint import Checkpoint


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


B = TypeVar("B")

BLOCKS = (ResnetBlock2D, EncoderBlock, PixelBlock)
"""What is run again in the backward pass where activations are recomputed."""

RECOMPUTE_FROM = 256
"""Side in pixels from which ``auto`` recomputes activations: below, they fit beside the weights."""


def ahead(make: Callable[[int], B], numbers: range, *, depth: int) -> Generator[B, None, None]:
    """``make(number)`` of all numbers, in order, made by a thread up to ``depth`` calls before they are asked for.

    With ``depth`` 0 there is no thread. An error of a call is raised where its result would have come.
    """
    if depth == 0:
        yield from map(make, numbers)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        waiting = deque(pool.submit(make, number) for number in numbers[:depth])
        try:
            for number in numbers:
                if number + depth in numbers:
                    waiting.append(pool.submit(make, number + depth))
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def recomputes(choice: str, side: int) -> bool:
    """Whether ``on``, ``off`` or ``auto`` means that activations of images of ``side`` pixels are recomputed."""
    return choice == "on" or (choice == "auto" and side >= RECOMPUTE_FROM)


@contextmanager
def recomputed(modules: Iterable[nn.Module], *, on: bool) -> Iterator[None]:
    """Inside, the residual blocks keep their inputs alone and are run again in the backward pass (torch's checkpoint).

    The same gradients for a third more time; the activations that are left are a few per block, not a dozen.
    """
    blocks = [m for module in modules for m in module.modules() if isinstance(m, BLOCKS)] if on else []
    try:
        for block in blocks:
            block.forward = _checkpointed(block.forward)  # type: ignore[method-assign]
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)


def _checkpointed(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def run(*inputs: Any, **named: Any) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)
        return checkpoint(forward, *inputs, use_reentrant=False, **named)

    return run


def _iteration(row: Mapping[str, Any]) -> int:
    """Of a log's line; 0 for a garbled one."""
    value = row.get("iteration")
    return value if isinstance(value, int) else 0


class RunLog:
    """A JSONL log (one object per line) and, on request, TensorBoard; rewound to the checkpoint on resume.

    Of a ``group`` of processes the main one alone writes.
    """

    def __init__(self, path: Path, *, start: int, tensorboard: Path | None = None, group: Processes = ALONE) -> None:
        self.path, self.began, self.group = path, time.monotonic(), group
        self.writer: Any = None
        if group.is_main:
            self._open(start, tensorboard)

    def _open(self, start: int, tensorboard: Path | None) -> None:
        path = self.path
        ensure_writable(path.parent)
        rows = read_jsonl(path)  # the last line of a killed run may be torn
        write_jsonl(path, [row for row in rows if start > 0 and 0 < _iteration(row) <= start])
        if tensorboard is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise OsasisError(
                    "--tensorboard needs the tensorboard package", remedy="pip install nnunet-osasis[tensorboard]"
                ) from error
            self.writer = SummaryWriter(str(tensorboard), purge_step=start)

    def write(self, iteration: int, **values: float) -> None:
        """Append one line and flush it."""
        if not self.group.is_main:
            return
        row = {"iteration": iteration, "seconds": round(time.monotonic() - self.began, 3)}
        row |= {key: float(f"{value:.6g}") for key, value in values.items()}
        append_jsonl(self.path, row)
        if self.writer is not None:
            for key, value in values.items():
                self.writer.add_scalar(key, value, iteration)

    def close(self) -> None:
        """Close TensorBoard's file, if there is one."""
        if self.writer is not None:
            self.writer.close()


def cosine(iteration: int, iterations: int) -> float:
    """Learning-rate factor falling from 1 to 0 over the run."""
    return 0.5 * (1 + math.cos(math.pi * iteration / iterations))


class Interruptible:
    """Turns Ctrl-C into a question asked between iterations, so that what is saved is never half a step."""

    def __enter__(self) -> Callable[[], bool]:
        self.asked = False
        self.previous = None
        if threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGINT, self._ask)
        return lambda: self.asked

    def _ask(self, *_: object) -> None:
        if self.asked:  # the second Ctrl-C does not wait
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: object) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)
