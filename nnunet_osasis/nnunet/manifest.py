"""What is known about every stylized case: from which bytes it was made, and which bytes it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nnunet_osasis.storage import atomic_write_json, sha256_of_file


@dataclass(frozen=True)
class FileState:
    """A file's content (SHA-256) with the size and time stamp it had when it was hashed."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Hash ``path``."""
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, sha256_of_file(path))

    def still_holds(self, path: Path) -> bool:
        """True when ``path`` has the recorded content.

        Size and time stamp both unchanged are taken as proof, as git does: reading a whole archive again at the
        start of every training would take longer than is good. Anything else is settled by the hash.
        """
        try:
            stat = path.stat()
        except FileNotFoundError:
            return False
        if stat.st_size != self.size:
            return False
        return stat.st_mtime_ns == self.mtime_ns or sha256_of_file(path) == self.sha256


@dataclass(frozen=True)
class CaseRecord:
    """One stylized case: its sources by file name, and the result."""

    sources: dict[str, FileState]
    result: FileState

    @classmethod
    def read(cls, path: Path) -> CaseRecord | None:
        """The record at ``path``; None when there is none or when it is not a record (it will then be made anew)."""
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            sources = {name: FileState(**state) for name, state in value["sources"].items()}
            return cls(sources, FileState(**value["result"]))
        except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError, AttributeError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Write atomically."""
        atomic_write_json(path, asdict(self))

    def still_holds(self, sources: list[Path], result: Path) -> bool:
        """True when neither the sources nor the result have changed."""
        return (
            set(self.sources) == {source.name for source in sources}
            and all(self.sources[source.name].still_holds(source) for source in sources)
            and self.result.still_holds(result)
        )


def append_event(path: Path, event: str, **details: Any) -> None:
    """Append one line to a JSONL log."""
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **details})
    with open(path, "a", encoding="utf-8") as stream:
        stream.write(line + "\n")
