"""Several processes on one piece of work: a training whose gradients are summed, or the shards of a long list.

``accelerate launch`` starts the processes of a training. Its batch is the batch of all processes together: each draws
the whole batch from the same generator and works on its own rows. The number of processes changes the speed and the
order of sums, and nothing else. Outside of :func:`joined` a process is alone, whatever its environment says. A shard
is the part of one job of a scheduler, of one process of ``accelerate launch``, or of both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from math import gcd
from typing import Any, TypeVar

import torch
from torch import distributed

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.children import exit_with_launcher

T = TypeVar("T")

MAX_BUCKET_ELEMENTS = 8 * 1024 * 1024
"""Most elements that are summed over the processes in one message: few messages, little extra memory."""

MAX_WAIT = timedelta(days=1)
"""Longest time that processes wait for one another: one may calibrate for hours. A dead one is noticed at once."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        index: number of this process, from 0.
        count: number of processes.
    """

    index: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows bars."""
        return self.index == 0

    def rows(self, total: int, *, what: str) -> slice:
        """The rows of a batch that this process works on; the first processes take one more if need be.

        Args:
            total: rows of the whole batch.
            what: names the batch and its option in the message.

        Raises:
            OsasisError: there are fewer rows than processes.
        """
        if total < self.count:
            raise OsasisError(
                f"{what} must have a part for every process",
                found=f"{total} for {self.count} processes",
                remedy="Make it larger, or start fewer processes.",
            )
        whole, more = divmod(total, self.count)
        first = self.index * whole + min(self.index, more)
        return slice(first, first + whole + (self.index < more))

    def sum(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace every tensor by its sum over the processes, in place; all give the same shapes in the same order."""
        if self.count == 1:
            return
        for bucket in _buckets(list(tensors)):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            distributed.all_reduce(flat)
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(part.view(tensor.shape))

    def sum_gradients(self, modules: Iterable[torch.nn.Module]) -> None:
        """Sum the gradients of all trained weights over the processes; a missing one counts as zero."""
        if self.count == 1:
            return
        trained = [p for module in modules for p in module.parameters() if p.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.sum([p.grad for p in trained if p.grad is not None])

    def take_over(self, modules: Iterable[torch.nn.Module]) -> None:
        """Give every process the main one's weights and buffers."""
        if self.count == 1:
            return
        for module in modules:
            for tensor in module.state_dict().values():
                whole = tensor.contiguous()
                distributed.broadcast(whole, src=0)
                if whole is not tensor:
                    tensor.copy_(whole)

    def from_main(self, make: Callable[[], T]) -> T:
        """Let the main process alone call ``make``, and give all of them what it returned (CPU tensors, plain values).

        When it fails there, its error goes on in the main process, and the others leave with the same exit status:
        no process waits for one that has given up.
        """
        if self.count == 1:
            return make()
        outcome: list[Any] = [None, None]  # what was made, or the exit status of who could not
        try:
            if self.is_main:
                outcome[0] = make()
        except BaseException as error:
            outcome = [None, 130 if isinstance(error, KeyboardInterrupt) else 1]
            raise
        finally:
            distributed.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise SystemExit(outcome[1])
        return outcome[0]

    @contextmanager
    def on_main(self, context: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
        """Hold what ``context`` returns, such as an output's lock, in the main process, while all are in here."""
        with ExitStack() as stack:
            self.from_main(lambda: stack.enter_context(context()) and None)
            yield

    def any(self, here: bool) -> bool:
        """Whether a condition holds in any process, so that all of them decide alike."""
        if self.count == 1:
            return here
        votes = torch.tensor([float(here)])
        if distributed.get_backend() == "nccl":
            votes = votes.cuda()
        self.sum([votes])
        return bool(votes.item())

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            distributed.barrier()


ALONE = Processes()

_current = ALONE


def current() -> Processes:
    """The processes that this one has ``joined``; it is alone otherwise."""
    return _current


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the processes that ``accelerate launch`` or ``torchrun`` started with this one, if there are others.

    Args:
        device: ``cpu`` (processes talk through gloo) or ``cuda`` (through NCCL; each takes a GPU of its own).

    Raises:
        OsasisError: a device that processes cannot share, or more processes than GPUs.
    """
    global _current
    if not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} <= set(os.environ) or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    exit_with_launcher()
    if device not in ("cpu", "cuda"):
        raise OsasisError(
            "Several processes work on the CPU, or on one GPU each",
            found=f"-device {device}",
            remedy="Leave -device out, and choose GPUs with accelerate's --gpu_ids.",
        )
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device == "cuda" and local > torch.cuda.device_count():
        raise OsasisError(
            "Every process needs a GPU of its own",
            found=f"{local} processes for {torch.cuda.device_count()} GPUs",
            remedy="Start as many processes as there are GPUs, or add -device cpu.",
        )
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu", timeout=MAX_WAIT)
    if device == "cuda" and distributed.get_backend() != "nccl":
        raise OsasisError(
            "Processes on GPUs talk through NCCL",
            found=distributed.get_backend(),
            remedy="Leave accelerate's --cpu (use_cpu in its configuration) out, or add -device cpu.",
        )
    _current = Processes(state.process_index, state.num_processes)
    try:
        yield _current
    finally:
        _current = ALONE
    # not after an error: the others may be in the middle of something, and the end of this process ends them
    state.destroy_process_group()
    PartialState._reset_state()


def _buckets(tensors: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Neighbors of one type, together at most ``MAX_BUCKET_ELEMENTS``, or one tensor that is larger by itself."""
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        if bucket and (
            tensor.dtype != bucket[0].dtype or sum(t.numel() for t in bucket) + tensor.numel() > MAX_BUCKET_ELEMENTS
        ):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


_LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
"""Environment variables that ``accelerate launch`` and ``torchrun`` set for each of several processes."""

_NAME = re.compile(r"part-(?P<index>\d+)-of-(?P<count>\d+)")


@dataclass(frozen=True)
class Shard:
    """Every ``count``-th item of a list, from ``index`` on; by default the whole list.

    Attributes:
        index: number of this shard, from 0.
        count: number of shards.

    Raises:
        OsasisError: unless ``0 <= index < count``.

    >>> Shard(1, 3).select("abcdefg")
    ['b', 'e']
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise OsasisError("There must be at least one part", found=self.count, remedy="Give --num-parts from 1 on.")
        if not 0 <= self.index < self.count:
            raise OsasisError(
                f"Of {self.count} part(s), --part-id is from 0 to {self.count - 1}",
                found=self.index,
                remedy="Count parts from 0, as nnU-Net does.",
            )

    def select(self, items: Sequence[T]) -> list[T]:
        """The items of this shard, in order."""
        return list(items[self.index :: self.count])

    def split(self, index: int, count: int) -> Shard:
        """Shard ``index`` of ``count`` of this shard, as a shard of the whole list."""
        inner = Shard(index, count)
        return Shard(self.index + inner.index * self.count, self.count * inner.count)

    def overlaps(self, other: Shard) -> bool:
        """Whether a list that is long enough has an item in both."""
        return (self.index - other.index) % gcd(self.count, other.count) == 0

    @property
    def name(self) -> str:
        """For file names; :meth:`named` reads it."""
        return f"part-{self.index}-of-{self.count}"

    @classmethod
    def named(cls, name: str) -> Shard | None:
        """The shard to which a file of this name belongs; None for other files."""
        match = _NAME.match(name)
        if match is None or not int(match["index"]) < int(match["count"]):
            return None
        return cls(int(match["index"]), int(match["count"]))

    def __str__(self) -> str:
        return "all images" if self.count == 1 else f"part {self.index} of {self.count}"


@dataclass(frozen=True)
class Launched:
    """This process among those that were launched together.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes on all machines.
        local_rank: number of this process on its machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0


def launched() -> Launched:
    """The process state that ``accelerate launch`` (or ``torchrun``) gave this process; one of one without them.

    It is read from the environment by accelerate's own function. ``PartialState`` is not used: it opens a process
    group, in which every rank waits for all others, and shards need no word from another rank. MPI's and Slurm's
    variables do not count: they are also set where a scheduler already gives each process a part of its own.

    Raises:
        OsasisError: the rank is not below the number of processes.
    """
    if not all(os.environ.get(name) for name in _LAUNCHED):
        return Launched()
    exit_with_launcher()
    from accelerate.utils.environment import get_cpu_distributed_information  # it reads the environment, nothing else

    state = get_cpu_distributed_information()
    if not 0 <= state.rank < state.world_size:
        raise OsasisError(
            "RANK must lie below WORLD_SIZE",
            found=f"RANK={state.rank}, WORLD_SIZE={state.world_size}",
            remedy="Start with accelerate launch, or unset both.",
        )
    return Launched(state.rank, state.world_size, state.local_rank)
