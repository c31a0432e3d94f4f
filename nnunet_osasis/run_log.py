"""The log of a training: one JSON object per line, and TensorBoard on request."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.distributed import ALONE, Processes
from nnunet_osasis.runtime.records import append_jsonl, read_jsonl, write_jsonl
from nnunet_osasis.runtime.storage import ensure_writable


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
