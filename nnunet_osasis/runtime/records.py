"""JSON files that are whole, sealed by their own checksum, and bounded; logs of one JSON object per line."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.storage import atomic_write_bytes, sha256_of_json, write_error

logger = logging.getLogger(__name__)

V = TypeVar("V", dict, list)

SEAL = "seal"
"""The key of a JSON object under which its own checksum stands."""

MAX_FILE_BYTES = 2**30
"""Largest JSON file that is read whole, in bytes; the manifest of a million images has a third of it."""

MAX_LINE_BYTES = 2**24
"""Longest line of a log that is read, in bytes."""

MAX_DEPTH = 64
"""Most objects and lists inside one another; deeper JSON would end the interpreter when it is written again."""

MAX_DIGITS = 20
"""Most digits of an integer: 64 bits have 20. Longer ones overflow in NumPy and take minutes to parse."""


def parse_json(data: bytes) -> Any:
    """Parse JSON in UTF-8 that anybody may have written, with or without a byte order mark.

    Raises ``ValueError`` for what is no JSON, exceeds the limits, or holds half characters, which no file can take.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"), parse_int=_bounded_int)
        if b"\\ud" in data.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError(f"more than {MAX_DEPTH} levels") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return value
    raise ValueError(f"more than {MAX_DEPTH} levels")


def _bounded_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def atomic_write_json(path: str | Path, value: Any) -> Path:
    """Write ``value`` as indented JSON with sorted keys, atomically."""
    return atomic_write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: str | Path, *, what: str, remedy: str = "Make it anew.") -> dict[str, Any]:
    """Read a JSON object; the arguments and errors are those of :func:`read_json_value`."""
    return read_json_value(path, dict, what=what, remedy=remedy)


def read_json_value(path: str | Path, kind: type[V], *, what: str, remedy: str = "Make it anew.") -> V:
    """Read JSON of a kind.

    Args:
        path: the file.
        kind: ``dict`` or ``list``.
        what: names the file in messages.
        remedy: what to do about a damaged file.

    Raises:
        OsasisError: the file is missing, no regular file, no JSON of that kind, or exceeds the limits of this module.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a device would be read for ever
            raise OsasisError(f"{what} must be a file", found=path, remedy="Check the path.")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise OsasisError(f"{what} must have at most {MAX_FILE_BYTES} bytes", found=path, remedy=remedy)
        value = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise OsasisError(f"{what} must exist", found=f"no file {path}", remedy="Check the path.") from None
    except OsasisError:
        raise
    except (OSError, ValueError) as error:
        raise OsasisError(f"{what} must be readable JSON", found=f"{error} in {path}", remedy=remedy) from error
    if not isinstance(value, kind):
        name, found = "object" if kind is dict else "array", f"{type(value).__name__} in {path}"
        raise OsasisError(f"{what} must be a JSON {name}", found=found, remedy=remedy)
    return value


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its own SHA-256 under ``"seal"``."""
    plain = json.loads(json.dumps({key: item for key, item in value.items() if key != SEAL}))  # as it will be read
    return plain | {SEAL: sha256_of_json(plain)}


def _unsealed(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key != SEAL}


def write_sealed_json(path: str | Path, value: Mapping[str, Any]) -> Path:
    """Write a JSON object with its own SHA-256 under ``"seal"``, atomically; ``read_sealed_json`` checks it."""
    return atomic_write_json(path, sealed(value))


def read_sealed_json(path: str | Path, *, what: str, remedy: str = "Make it anew.") -> dict[str, Any]:
    """Read what ``write_sealed_json`` wrote, without its seal.

    Args:
        path: the file.
        what: names the file in messages.
        remedy: what to do about a damaged file.

    Raises:
        OsasisError: the file is missing, no JSON object, or does not fit its seal.
    """
    value = read_json(path, what=what, remedy=remedy)
    if value != sealed(value):
        raise OsasisError(f"{what} must be as it was written", found=f"another checksum for {path}", remedy=remedy)
    return _unsealed(value)


def finished(record: Path, key: str) -> dict[str, Any] | None:
    """The sealed record of a piece of work that was done for ``key``; None when the work must be done (again)."""
    if not record.is_file():
        return None
    try:
        facts = read_sealed_json(record, what="A record of the workspace")
    except OsasisError as error:
        logger.warning("%s What it records is done anew.", error)
        return None
    return facts if facts.get("key") == key else None


def append_jsonl(path: str | Path, row: Mapping[str, Any]) -> None:
    """Append one object as one line, in one write; a torn last line of a killed run is closed first.

    Raises:
        OsasisError: the line cannot be written.
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


def append_sealed_line(path: str | Path, row: Mapping[str, Any]) -> None:
    """:func:`append_jsonl` with the row's own checksum, which tells a line that was torn or altered from others."""
    append_jsonl(path, sealed(row))


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Replace a log by ``rows``, atomically."""
    return atomic_write_bytes(path, "".join(f"{json.dumps(row)}\n" for row in rows).encode())


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """All rows of :func:`iter_jsonl` as a list."""
    return list(iter_jsonl(path))


def iter_jsonl(
    path: str | Path, *, with_seals: bool = False, accepts: Callable[[dict[str, Any]], bool] = lambda row: True
) -> Iterator[dict[str, Any]]:
    """Yield the objects of a log one by one, with one in memory at a time; nothing without a file.

    Rotten lines are left out, and a warning names them: torn and garbled ones, those that exceed the limits of this
    module, those that do not fit their seal, and those that are not accepted.

    Args:
        path: the log.
        with_seals: every line was written by :func:`append_sealed_line`; the seal is checked and taken off.
        accepts: whether an object is a row of this log.
    """
    path, rotten = Path(path), list[int]()
    try:
        with open(path, "rb") as stream:
            for number, line in enumerate(_bounded_lines(stream), start=1):
                if not line.strip():
                    continue
                row = _row_of(line, with_seals)
                if row is None or not accepts(row):
                    rotten.append(number)
                else:
                    yield row
    except FileNotFoundError:
        return
    if rotten:
        shown = ", ".join(map(str, rotten[:5])) + (", ..." if len(rotten) > 5 else "")
        logger.warning("%d line(s) of %s are torn or garbled and are left out: %s", len(rotten), path, shown)


def _bounded_lines(stream: Any) -> Iterator[bytes]:
    """The lines of a file; of a line that is too long only the beginning, which is no JSON."""
    while line := stream.readline(MAX_LINE_BYTES):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES)
        yield line


def _row_of(line: bytes, with_seals: bool) -> dict[str, Any] | None:
    try:
        row = parse_json(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or (with_seals and row != sealed(row)):
        return None
    return _unsealed(row) if with_seals else row


def override(config: Any, **changes: Any) -> Any:
    """A copy of a frozen config with the changes that are not None."""
    return replace(config, **{key: value for key, value in changes.items() if value is not None})


def as_json(config: Any) -> dict[str, Any]:
    """A dataclass as plain JSON values (tuples become lists)."""
    return json.loads(json.dumps(asdict(config)))
