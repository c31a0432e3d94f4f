"""Devices and precision: which device a name means, autocast, defaults of torch, random-number generators."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.distributed import Launched


def resolve_device(name: str) -> str:
    """Turn ``auto`` into the best device of this machine.

    Raises:
        OsasisError: this machine has no device ``name``.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind = name.split(":")[0]
    there = {
        "cpu": lambda: name == "cpu",
        "cuda": lambda: torch.cuda.is_available() and int(name[5:] or 0) < torch.cuda.device_count(),
        "mps": lambda: name == "mps" and torch.backends.mps.is_available(),
    }
    if kind not in there or not re.fullmatch(r"\w+(:\d+)?", name) or not there[kind]():
        raise OsasisError("The device (-device, device=) must be one of this machine", found=name, remedy="Use cpu.")
    return name


def own_device(name: str, process: Launched) -> str:
    """The device of one of several processes: a GPU of its own if ``name`` is ``auto`` or ``cuda``.

    ``accelerate launch --cpu`` turns ``auto`` into the CPU. More processes than GPUs share the GPUs in turn.

    Args:
        name: the device option, which all processes were given.
        process: this process among those launched together.
    """
    if process.count == 1 or name not in ("auto", "cuda"):
        return name
    if name == "auto" and os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("true", "1", "yes"):
        return "cpu"
    if not torch.cuda.is_available():
        return name
    return f"cuda:{process.local_rank % torch.cuda.device_count()}"


def autocast(precision: str, device: str) -> torch.autocast:
    """Make the autocast context of a precision.

    Args:
        precision: ``bf16``, ``fp32``, or ``auto``, which is bf16 on hardware that computes in it.
        device: such as ``cpu`` or ``cuda:1``.
    """
    kind = torch.device(device).type
    if precision == "auto":
        if kind == "cuda":
            bf16 = torch.cuda.is_bf16_supported()
        else:
            bf16 = kind == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    else:
        bf16 = precision == "bf16"
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=bf16)


AUTOCASTS = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices whose autocast a caller may have switched on."""

PRECISE = "highest"
"""torch's own default of ``set_float32_matmul_precision``; others round products to 16 or 19 bits."""


class _Defaults:
    """torch's process-wide defaults, set back while any thread computes and restored by the last one."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._callers: tuple[torch.dtype, str] = (torch.float32, PRECISE)

    @contextmanager
    def usual(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._callers = (torch.get_default_dtype(), torch.get_float32_matmul_precision())
                self._set(torch.float32, PRECISE)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._set(*self._callers)

    @staticmethod
    def _set(dtype: torch.dtype, precision: str) -> None:
        if torch.get_default_dtype() != dtype:
            torch.set_default_dtype(dtype)
        if torch.get_float32_matmul_precision() != precision:
            torch.set_float32_matmul_precision(precision)


_DEFAULTS = _Defaults()

if hasattr(os, "register_at_fork"):  # a child would inherit a lock that no thread of its own opens
    os.register_at_fork(after_in_child=_DEFAULTS.__init__)  # type: ignore[misc]


@contextmanager
def as_usual(*, graphs: bool = False) -> Iterator[None]:
    """Compute as in a fresh process, whatever the caller has set in torch; also a decorator.

    Autocast, default dtype, default device and the precision of matrix products do not reach inside. What is made
    inside carries no graph, and is no inference tensor, so that a network can be trained on it.

    Args:
        graphs: leave that to the caller's modes instead, so that gradients can flow through.
    """
    with ExitStack() as stack:
        for kind in AUTOCASTS:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if not graphs:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        stack.enter_context(_DEFAULTS.usual())
        yield


def generator_for(seed: int, iteration: int, stream: int = 0) -> torch.Generator:
    """Make a CPU generator for one iteration of one stream of random numbers.

    Args:
        seed: of the whole computation.
        iteration: counted from 0.
        stream: id of the stream, in [0, 16); generators of different streams are independent.
    """
    return torch.Generator().manual_seed((seed * 1_000_003 + iteration) * 16 + stream)


def fused(device: str) -> bool | None:
    """The option ``fused`` of torch's Adam, one kernel for all weights: True on CPU and CUDA, else torch's choice."""
    return True if torch.device(device).type in ("cpu", "cuda") else None


def lay_out(module: nn.Module, device: str) -> None:
    """Move a module to a device, channels last on CUDA. On CPUs this layout is not faster, and slower in bf16."""
    module.to(device)
    if torch.device(device).type == "cuda":
        module.to(memory_format=torch.channels_last)
