"""Shares of a long list: one per job of a scheduler, one per process of ``accelerate launch``, or both multiplied."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import TypeVar

from nnunet_osasis.errors import OsasisError

T = TypeVar("T")
_LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
"""What ``accelerate launch`` and ``torchrun`` tell each of several processes."""
_NAME = re.compile(r"part-(?P<index>\d+)-of-(?P<count>\d+)")


@dataclass(frozen=True)
class Share:
    """Every ``count``-th item of a list, from ``index`` on; by default all of it.

    Raises ``OsasisError`` unless ``0 <= index < count``.
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

    def of(self, items: Sequence[T]) -> list[T]:
        """The items of this share, in order."""
        return list(items[self.index :: self.count])

    def split(self, index: int, count: int) -> Share:
        """Share ``index`` of ``count`` of this share: again every so-many-th item of the whole list."""
        inner = Share(index, count)
        return Share(self.index + inner.index * self.count, self.count * inner.count)

    def meets(self, other: Share) -> bool:
        """Whether a list that is long enough has an item in both."""
        return (self.index - other.index) % gcd(self.count, other.count) == 0

    @property
    def name(self) -> str:
        """For file names; :meth:`named` reads it."""
        return f"part-{self.index}-of-{self.count}"

    @classmethod
    def named(cls, name: str) -> Share | None:
        """The share whose file's name begins so; None for other files."""
        found = _NAME.match(name)
        if found is None or not int(found["index"]) < int(found["count"]):
            return None
        return cls(int(found["index"]), int(found["count"]))

    def __str__(self) -> str:
        return "all images" if self.count == 1 else f"part {self.index} of {self.count}"


@dataclass(frozen=True)
class Launched:
    """This process among those started together: ``rank`` of ``count``, ``local_rank`` on its machine."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0


def launched() -> Launched:
    """The process state that ``accelerate launch`` (or ``torchrun``) gave this process; one of one without them.

    It is read from the environment by accelerate's own function. ``PartialState`` is not used: it opens a process
    group, in which every rank waits for all others, and shares need no word from another rank. MPI's and Slurm's
    variables do not count: they are also there where a scheduler already gives each process a part of its own.

    Raises ``OsasisError`` for a rank outside the number of processes.
    """
    if not all(os.environ.get(name) for name in _LAUNCHED):
        return Launched()
    from accelerate.utils.environment import get_cpu_distributed_information  # it reads the environment, nothing else

    state = get_cpu_distributed_information()
    if not 0 <= state.rank < state.world_size:
        raise OsasisError(
            "RANK must lie below WORLD_SIZE",
            found=f"RANK={state.rank}, WORLD_SIZE={state.world_size}",
            remedy="Start with accelerate launch, or unset both.",
        )
    return Launched(state.rank, state.world_size, state.local_rank)


def own_device(name: str, process: Launched) -> str:
    """The device option of one of several processes: its own GPU where ``auto`` or ``cuda`` leave the choice.

    ``accelerate launch --cpu`` is heeded. Processes beyond the number of GPUs share them in turn.
    """
    if process.count == 1 or name not in ("auto", "cuda"):
        return name
    if name == "auto" and os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes"):
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        return name
    return f"cuda:{process.local_rank % torch.cuda.device_count()}"
