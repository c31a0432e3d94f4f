"""What the tests of parallel case making send to worker processes: importable there, unlike a test module."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import torch

from nnunet_osasis.errors import OsasisError


class Troubled:
    """Answers with its process and its thread count; fails, or is killed, at the cases it is told."""

    def __init__(self, *, fails: str = "", dies: str = "") -> None:
        self.fails, self.dies, self.device = fails, dies, ""

    def to(self, device: str) -> None:
        self.device = device

    def __call__(self, key: str) -> tuple[str, int, int]:
        if key == self.fails:
            raise OsasisError("A rule", found=key, remedy="Do this:\n  a command")
        if key == self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.device, os.getpid(), torch.get_num_threads()


class Darker:
    """A style transfer for three channels that needs no weights, but ``seconds``."""

    in_channels, fingerprint = 3, "darker"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def stylize_array(self, array: np.ndarray, *, strength: float | None = None) -> np.ndarray:
        time.sleep(self.seconds)
        return (array * 0.8).astype(np.float32)
