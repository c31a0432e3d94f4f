"""What the tests do to files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np


def flip(path: Path, bit: int) -> None:
    """Turn one bit of a file over, its time stamps kept, as a failing disk does."""
    import os

    stat, data = path.stat(), bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def some_bits(path: Path, count: int, *, seed: int = 0) -> Iterator[int]:
    """Bits all over a file: its first and last ones, and random ones between."""
    bits = path.stat().st_size * 8
    yield from {0, 3, bits - 1, *np.random.default_rng(seed).integers(0, bits, count).tolist()}
