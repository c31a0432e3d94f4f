"""What every long training here shares: precision, EMA, a log, and checkpoints that resume to the same weights.

Randomness of iteration ``i`` comes from a generator seeded by ``(seed, i)`` alone, so that a resumed run draws
what an uninterrupted one would have drawn and no generator state has to be stored.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.jsonl import append_jsonl, read_jsonl, write_jsonl
from nnunet_osasis.storage import atomic_write, ensure_writable, sha256_of_tensors


def autocast(precision: str, device: str) -> torch.autocast:
    """The autocast context of a precision: ``bf16``, ``fp32``, or ``auto`` (bf16 where the hardware has it)."""
    kind = torch.device(device).type
    if precision == "auto":
        if kind == "cuda":
            bf16 = torch.cuda.is_bf16_supported()
        else:
            bf16 = kind == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    else:
        bf16 = precision == "bf16"
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=bf16)


def generator_for(seed: int, iteration: int, stream: int = 0) -> torch.Generator:
    """A CPU generator for one iteration of one stream of random numbers."""
    return torch.Generator().manual_seed((seed * 1_000_003 + iteration) * 16 + stream)


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


class EMA:
    """Exponential moving average of a module's weights, warmed up: ``min(decay, (1 + i) / (10 + i))``."""

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module, iteration: int) -> None:
        """Move the average one step towards the module's present weights."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        for name, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                self.weights[name].lerp_(value, 1 - decay)
            else:
                self.weights[name].copy_(value)


class Kept(Protocol):
    """Tensors by name, such as an EMA's, that a checkpoint stores and on resume fills in place."""

    weights: dict[str, torch.Tensor]


class Checkpoint:
    """One safetensors file holding everything a run needs to go on: weights, averages, optimiser, iteration.

    A SHA-256 of all of it stands in the file's metadata; files of earlier versions, which have none, are still read.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint

    def save(
        self,
        iteration: int,
        modules: Mapping[str, torch.nn.Module],
        averages: Mapping[str, Kept],
        optimizers: Mapping[str, torch.optim.Optimizer],
        done: bool,
    ) -> None:
        """Write the state after ``iteration`` steps, atomically."""
        from safetensors.torch import save_file

        tensors: dict[str, torch.Tensor] = {}
        for name, module in modules.items():
            tensors |= {f"module/{name}/{key}": value for key, value in module.state_dict().items()}
        for name, average in averages.items():
            tensors |= {f"ema/{name}/{key}": value for key, value in average.weights.items()}
        for name, optimizer in optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{name}/{index}/{key}": torch.as_tensor(v) for key, v in state.items()}
        whole = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        metadata = {"fingerprint": self.fingerprint, "iteration": str(iteration), "done": str(int(done))}
        metadata["sha256"] = sha256_of_tensors(whole, metadata)
        atomic_write(self.path, lambda temporary: save_file(whole, str(temporary), metadata=metadata))

    def load(
        self,
        modules: Mapping[str, torch.nn.Module],
        averages: Mapping[str, Kept],
        optimizers: Mapping[str, torch.optim.Optimizer],
    ) -> tuple[int, bool]:
        """Restore the state; returns (iterations done, finished). (0, False) when there is no checkpoint.

        Raises ``OsasisError`` when the file is damaged or belongs to other data or settings.
        """
        from safetensors import SafetensorError, safe_open

        if not self.path.exists():
            return 0, False
        try:
            with safe_open(str(self.path), framework="pt") as opened:
                metadata = opened.metadata() or {}
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError) as error:
            raise OsasisError(
                "The checkpoint must be whole", found=f"{error} in {self.path}", remedy="Delete it to start again."
            ) from error
        digest = metadata.pop("sha256", None)
        if set(metadata) != {"fingerprint", "iteration", "done"} or digest not in (
            None,
            sha256_of_tensors(tensors, metadata),
        ):
            raise OsasisError(
                "The checkpoint must be as it was written",
                found=f"another checksum for {self.path}",
                remedy="It is damaged: delete it to start again.",
            )
        if metadata.get("fingerprint") != self.fingerprint:
            raise OsasisError(
                "A run can only be resumed with the same images and settings",
                found=f"a checkpoint of another run, {self.path}",
                remedy="Repeat the original command with --resume, or start again with --overwrite.",
            )

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}

        for name, module in modules.items():
            module.load_state_dict(part(f"module/{name}/"))
        for name, average in averages.items():
            for key, value in part(f"ema/{name}/").items():
                average.weights[key].copy_(value)
        for name, optimizer in optimizers.items():
            state: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in part(f"optimizer/{name}/").items():
                index, entry = key.split("/")
                state.setdefault(int(index), {})[entry] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        return int(metadata["iteration"]), metadata["done"] == "1"


def _iteration(row: Mapping[str, Any]) -> int:
    """Of a log's line; 0 for a garbled one."""
    value = row.get("iteration")
    return value if isinstance(value, int) else 0


class RunLog:
    """A JSONL log (one object per line) and, on request, TensorBoard; rewound to the checkpoint on resume."""

    def __init__(self, path: Path, *, start: int, tensorboard: Path | None = None) -> None:
        self.path, self.began = path, time.monotonic()
        ensure_writable(path.parent)
        rows = read_jsonl(path)  # the last line of a killed run may be torn
        write_jsonl(path, [row for row in rows if start > 0 and 0 < _iteration(row) <= start])
        self.writer: Any = None
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
