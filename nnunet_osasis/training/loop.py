"""The one training loop of this package, and what keeps a device busy while it runs.

The randomness of iteration ``i`` comes from a generator seeded by ``(seed, i)`` alone, so a resumed run draws what an
uninterrupted one would have drawn, and no generator state has to be stored.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.utils import checkpoint as activations
from tqdm import tqdm

from nnunet_osasis.diffusion.autoencoder import EncoderBlock
from nnunet_osasis.diffusion.spn import PixelBlock
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.distributed import ALONE, Processes
from nnunet_osasis.runtime.records import append_jsonl, read_jsonl, write_jsonl
from nnunet_osasis.runtime.storage import ensure_writable
from nnunet_osasis.training.checkpoint import Checkpoint, TrainingState

Values = Mapping[str, torch.Tensor | float]
"""What a training step returns: the scalar ``loss`` and whatever else belongs into the log."""

B = TypeVar("B")

HOW = ("checkpoint_every", "grid_every", "recompute", "compile")
"""Settings of how a training runs and what it shows; a checkpoint may be continued under other values."""

RECOMPUTE = ("auto", "on", "off")
"""Choices for recomputing activations in the backward pass; ``auto`` does from ``RECOMPUTE_FROM`` pixels on."""

CHECKED = ("loss", "grad_norm")
"""Values of a step that must stay finite."""


def fit(
    name: str,
    step: Callable[[int], Values],
    state: TrainingState,
    *,
    iterations: int,
    work: Path,
    resume: bool,
    save_every: int,
    log_every: int = 10,
    look_every: int = 1,
    group: Processes = ALONE,
    on_iteration: Callable[[int], None] | None = None,
    tensorboard: Path | None = None,
    remedy: str = "Check the source images.",
) -> None:
    """Run ``step(i)`` for ``i`` in ``range(iterations)``; a resumed run ends with the same bytes (on a CPU).

    Args:
        name: the checkpoint is ``<name>.safetensors`` and the log ``<name>.jsonl``; also the title of the bar.
        step: one optimizer step; returns values that are equal in all processes.
        state: modules, averages and optimizers, changed in place by ``step`` and restored on resume.
        iterations: number of steps; a finished run returns at once.
        work: folder of checkpoint and log.
        resume: continue from the checkpoint, if there is one.
        save_every: steps between two checkpoints.
        log_every: steps between two lines of the log; 0 writes no log.
        look_every: steps between two looks at the values of a step. A look makes the CPU wait for the device, which
            then waits for the CPU. A value that is not finite is remembered until the next look.
        group: processes that train together; the main one writes.
        on_iteration: called with the number of finished steps after every step, before a checkpoint is written.
        tensorboard: folder of TensorBoard events; None writes none.
        remedy: last sentence of the error for a loss that is not finite.

    Raises:
        OsasisError: a loss that is not finite, or a checkpoint of another training.
        KeyboardInterrupt: on Ctrl-C, after the state has been saved.
    """
    checkpoint = Checkpoint(work / f"{name}.safetensors", state, group)
    start, done = checkpoint.load() if resume else (0, False)
    group.take_over(state.modules.values())  # processors of another make may round another way
    if done:
        return
    values: Values = {}
    with ExitStack() as stack:
        interrupted = stack.enter_context(Interruptible())
        log = None
        if log_every:
            log = RunLog(
                work / f"{name}.jsonl", start=start, tensorboard=tensorboard and tensorboard / name, group=group
            )
            stack.enter_context(closing(log))
        bar = stack.enter_context(
            tqdm(total=iterations, initial=start, desc=name, dynamic_ncols=True, disable=not group.is_main)
        )
        for iteration in range(start + 1, iterations + 1):
            values = _keep_non_finite(values, step(iteration - 1))
            bar.update()
            last = iteration == iterations
            logged = log_every > 0 and (last or iteration % log_every == 0)
            saved = last or iteration % save_every == 0
            asked = False
            if logged or saved or iteration % look_every == 0:
                numbers = {key: float(value) for key, value in values.items()}
                _require_finite(name, numbers, iteration, remedy)
                asked = group.any(interrupted())
                if logged and log is not None:
                    log.write(iteration, **numbers)
                    bar.set_postfix(loss=f"{numbers['loss']:.4g}", refresh=False)
                values = {}
            if on_iteration is not None:  # before the checkpoint: a run killed between the two repeats it
                on_iteration(iteration)
            if saved or asked:
                checkpoint.save(iteration, done=last)
            if asked:
                raise KeyboardInterrupt


def _keep_non_finite(earlier: Values, values: Values) -> Values:
    """``values``, but for tensors that were not finite since the last look: those stay. No wait for the device."""
    kept = dict(values)
    for key, before in earlier.items():
        if isinstance(before, torch.Tensor) and isinstance(now := values.get(key), torch.Tensor):
            kept[key] = torch.where(torch.isfinite(before), now, before)
    return kept


def _require_finite(name: str, numbers: Mapping[str, float], iteration: int, remedy: str) -> None:
    """Raise ``OsasisError`` if the loss or the gradient norm is not finite; all processes see the same numbers."""
    checked = {key: numbers[key] for key in CHECKED if key in numbers}
    if not all(math.isfinite(value) for value in checked.values()):
        raise OsasisError(
            f"The loss of {name} must stay finite",
            found=f"{', '.join(f'{key} {value:g}' for key, value in checked.items())} in iteration {iteration}",
            remedy=remedy,
        )


def one_cycle(iteration: int, iterations: int, *, warm: float = 0.3) -> float:
    """Rate factor: a cosine up from 1/25 over the first ``warm`` share, a cosine down to nearly 0 after it."""
    position = (iteration + 1) / iterations
    if position < warm:
        return 1 / 25 + (1 - 1 / 25) * 0.5 * (1 - math.cos(math.pi * position / warm))
    return 1e-4 + (1 - 1e-4) * 0.5 * (1 + math.cos(math.pi * (position - warm) / (1 - warm)))


class OneCycle:
    """AdamW with a one-cycle learning rate and gradients clipped to norm 1, for the small networks.

    Args:
        network: what is trained.
        learning_rate: peak of the cycle.
        weight_decay: of AdamW.
        iterations: length of the cycle.
    """

    def __init__(self, network: nn.Module, *, learning_rate: float, weight_decay: float, iterations: int) -> None:
        self.network, self.peak, self.iterations = network, learning_rate, iterations
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)

    def step(self, iteration: int, losses: Mapping[str, torch.Tensor]) -> Values:
        """Step down the gradient of ``losses["loss"]``; returns all of ``losses``, detached, and ``grad_norm``."""
        self.optimizer.param_groups[0]["lr"] = self.peak * one_cycle(iteration, self.iterations)
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        return {**{key: value.detach() for key, value in losses.items()}, "grad_norm": norm}


def cosine(iteration: int, iterations: int) -> float:
    """Learning-rate factor falling from 1 to 0 over the run."""
    return 0.5 * (1 + math.cos(math.pi * iteration / iterations))


BLOCKS = (ResnetBlock2D, EncoderBlock, PixelBlock)
"""Residual blocks that run again in the backward pass when activations are recomputed."""

RECOMPUTE_FROM = 256
"""Image side in pixels from which ``auto`` recomputes activations; below it they fit beside the weights."""


@contextmanager
def prefetched(make: Callable[[int], B], stop: int, *, depth: int) -> Iterator[Callable[[int], B]]:
    """Yield ``make``, whose next ``depth`` results (below ``stop``) are computed ahead by a thread.

    With ``depth`` 0 there is no thread. An error of a call is raised where its result would have come.
    """
    if depth == 0:
        yield make
        return
    waiting: dict[int, Future[B]] = {}
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:

        def take(number: int) -> B:
            for later in range(number, min(number + depth + 1, stop)):
                if later not in waiting:
                    waiting[later] = pool.submit(make, later)
            return waiting.pop(number).result()

        try:
            yield take
        finally:
            for future in waiting.values():
                future.cancel()


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
        return activations.checkpoint(forward, *inputs, use_reentrant=False, **named)

    return run


def _iteration(row: Mapping[str, Any]) -> int:
    """Read a log line's iteration; 0 for a garbled one."""
    value = row.get("iteration")
    return value if isinstance(value, int) else 0


class RunLog:
    """A JSONL log (one object per line) and, on request, TensorBoard; rewound to the checkpoint on resume.

    Args:
        path: the JSONL file.
        start: iterations already done; later lines of an earlier run are dropped.
        tensorboard: folder of TensorBoard events; None writes none.
        group: processes that train together; only the main one writes.
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
                    "--tensorboard needs the tensorboard package", remedy="Run: pip install tensorboard"
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


class Interruptible:
    """Turns Ctrl-C into a flag read between iterations, so that no checkpoint holds half a step.

    Inside, it is a function that tells whether Ctrl-C was pressed; a second Ctrl-C does not wait.
    """

    def __enter__(self) -> Callable[[], bool]:
        self.asked = False
        self.previous = None
        if threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGINT, self._ask)
        return lambda: self.asked

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: object) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)
