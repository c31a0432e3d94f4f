"""Logs of one JSON object per line, that survive a process killed in the middle of a line."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.storage import atomic_write_bytes, sha256_of_json, write_error

SEAL = "seal"
"""The key of a JSON file under which its own checksum stands."""


def atomic_write_json(path: str | Path, value: Any) -> Path:
    """Write ``value`` as indented JSON with sorted keys, atomically."""
    return atomic_write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: str | Path, *, what: str, remedy: str = "Make it anew.") -> dict[str, Any]:
    """Read a JSON object. ``what`` names it in the ``OsasisError`` raised when it is missing or damaged."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a device would be read for ever
            raise OsasisError(f"{what} must be a file", found=path, remedy="Check the path.")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OsasisError(f"{what} must exist", found=f"no file {path}", remedy="Check the path.") from None
    except OsasisError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise OsasisError(f"{what} must be readable JSON", found=f"{error} in {path}", remedy=remedy) from error
    if not isinstance(value, dict):
        raise OsasisError(f"{what} must be a JSON object", found=type(value).__name__, remedy=remedy)
    return value


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its own SHA-256 under ``"seal"``."""
    plain = json.loads(json.dumps({key: item for key, item in value.items() if key != SEAL}))  # as it will be read
    return plain | {SEAL: sha256_of_json(plain)}


def write_sealed_json(path: str | Path, value: Mapping[str, Any]) -> Path:
    """Write a JSON object with its own SHA-256 under ``"seal"``, atomically; ``read_sealed_json`` checks it."""
    return atomic_write_json(path, sealed(value))


def read_sealed_json(
    path: str | Path, *, what: str, unsealed: Collection[str] | None = None, remedy: str = "Make it anew."
) -> dict[str, Any]:
    """Read what ``write_sealed_json`` wrote, without its seal.

    Args:
        what: names the file in messages. remedy: what to do about a damaged one.
        unsealed: the keys a file of an earlier version may have, which wrote no seal. A file without a seal and with
            no other keys is read as it is, and that is said; with any other key it is taken for a damaged one.

    Raises ``OsasisError`` when the file is missing, is no JSON object, or does not fit its seal.
    """
    value = read_json(path, what=what, remedy=remedy)
    if SEAL not in value and unsealed is not None and set(value) <= set(unsealed):
        logger.warning("%s comes from an earlier version and has no checksum: it is read as it is.", path)
        return value
    if value != sealed(value):
        raise OsasisError(f"{what} must be as it was written", found=f"another checksum for {path}", remedy=remedy)
    return {key: item for key, item in value.items() if key != SEAL}


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


def override(config: Any, **changes: Any) -> Any:
    """A copy of a frozen config with the changes that are not None."""
    return replace(config, **{key: value for key, value in changes.items() if value is not None})


def as_json(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values (tuples become lists)."""
    import json

    return json.loads(json.dumps(asdict(config)))


_UNSEALED = (
    *("key", "rows", "method", "target", "fingerprint", "sha256", "seconds_fit", "seconds_per_image"),
    *("cell", "command", "seconds_train", "seconds_predict", "peak_memory_mib", "losses", "device"),
)
"""What records of earlier versions hold, which had no checksum."""


def finished(record: Path, key: str) -> dict[str, Any] | None:
    """The record of a piece of work, when it is there, whole, and was done for ``key``; else the work is done anew."""
    if not record.is_file():
        return None
    try:
        found = read_sealed_json(record, what="A record of the workspace", unsealed=_UNSEALED)
    except OsasisError as error:
        logger.warning("%s What it records is done anew.", error)
        return None
    return found if found.get("key") == key else None
