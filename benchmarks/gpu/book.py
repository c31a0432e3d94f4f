"""What the steps share: a file of entries that is saved after each of them, and the clock that bounds a step."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nnunet_osasis.runtime.records import atomic_write_json, read_json

NO_TIME = "no time left"


@dataclass
class Book:
    """The entries of one step, ``{name: {...}}``, in a file of its own.

    An entry is made once: what a run before has found is kept, what failed or found no time is tried again.

    Attributes:
        path: the file.
        device: such as ``cuda``.
        tiny: the smallest scale, for a CPU.
        deadline: ``time.monotonic()`` at which the step has to end.
        data: folder of real images, or None.
        work: folder for what the step makes.
    """

    path: Path
    device: str
    tiny: bool
    deadline: float
    data: Path | None
    work: Path
    entries: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.is_file():
            self.entries = read_json(self.path, what="A step's entries")

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def once(self, name: str, make: Callable[[], dict[str, Any]], *, needs: float = 0.0) -> dict[str, Any] | None:
        """Make an entry and save it; an error becomes one, with its traceback. None where there is no result.

        Args:
            name: of the entry.
            make: returns it.
            needs: seconds it takes; with less left it is passed over, and the entry says so.
        """
        known = self.entries.get(name)
        if known is not None and not {"error", "skipped"} & set(known):
            return dict(known)
        if self.left < needs or self.left <= 0:
            return self._write(name, {"skipped": NO_TIME, "seconds_left": round(self.left, 1)})
        began = time.perf_counter()
        try:
            entry = make() | {"took_s": round(time.perf_counter() - began, 2)}
        except Exception as error:
            self._write(name, {"error": f"{type(error).__name__}: {error}"[:500], "traceback": traceback.format_exc()})
            self.release()
            return None
        self._write(name, entry)
        return entry

    def release(self) -> None:
        """Give unused memory of the device back, and count its peak anew."""
        if torch.device(self.device).type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def _write(self, name: str, entry: dict[str, Any]) -> None:
        self.entries[name] = entry
        atomic_write_json(self.path, self.entries)
