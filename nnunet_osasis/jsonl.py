"""Logs of one JSON object per line, that survive a process killed in the middle of a line."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunet_osasis.storage import SEAL, atomic_write_bytes, sealed, write_error

logger = logging.getLogger(__name__)


def append_jsonl(path: str | Path, row: Mapping[str, Any]) -> None:
    """Append one object as one line, in one write; a torn last line of a killed run is closed first.

    Raises ``OsasisError`` when it cannot be written.
    """
    line = json.dumps(row).encode() + b"\n"
    try:
        with open(path, "ab+", buffering=0) as stream:
            if stream.seek(0, os.SEEK_END):
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    line = b"\n" + line
            written = stream.write(line)
            while written < len(line):  # a disk that fills up takes a part, then says so
                written += stream.write(line[written:])
    except OSError as error:
        raise write_error(Path(path), error) from error


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Replace a log by ``rows``, atomically."""
    return atomic_write_bytes(path, "".join(f"{json.dumps(row)}\n" for row in rows).encode())


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """All whole objects of a log, in order ([] without a file); torn and garbled lines are left out, which is said."""
    return list(iter_jsonl(path))


def iter_jsonl(path: str | Path, *, with_seals: bool = False) -> Iterator[dict[str, Any]]:
    """The whole objects of a log one by one, of which one is in memory at a time (none without a file).

    Torn and garbled lines are left out, which is said at the end. ``with_seals``: every line was written with
    :func:`append_sealed_line`; those that do not fit their checksum count as garbled, and the seal is taken off.
    """
    path, torn = Path(path), 0
    try:
        with open(path, "rb") as stream:
            for line in stream:
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (UnicodeDecodeError, json.JSONDecodeError):
                    torn += 1
                    continue
                if not isinstance(row, dict) or (with_seals and row != sealed(row)):
                    torn += 1
                else:
                    yield {key: item for key, item in row.items() if key != SEAL} if with_seals else row
    except FileNotFoundError:
        return
    if torn:
        logger.warning("%d line(s) of %s are torn or garbled and are left out.", torn, path)


def append_sealed_line(path: str | Path, row: Mapping[str, Any]) -> None:
    """:func:`append_jsonl` with the row's own checksum, so that a line that was torn or altered is told from others."""
    append_jsonl(path, sealed(row))
