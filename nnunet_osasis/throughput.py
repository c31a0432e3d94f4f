"""What keeps a device busy: one optimiser kernel, the memory layout it likes, batches that are ready, less memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.utils.checkpoint import checkpoint

from nnunet_osasis.diffusion.autoencoder import EncoderBlock
from nnunet_osasis.diffusion.spn import PixelBlock

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
