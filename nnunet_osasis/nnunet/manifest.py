"""What is known about every stylized case: from which bytes it was made, and which bytes it is."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.records import append_jsonl, read_sealed_json, write_sealed_json
from nnunet_osasis.runtime.storage import sha256_of_file

_SETTLED = 2_000_000_000
"""Nanoseconds: a file changed less than this before it was hashed may change again within its time stamp's grain."""


@dataclass(frozen=True)
class FileState:
    """A file's content (SHA-256) with the size, time stamps and inode it had when it was hashed.

    ``ctime_ns`` is 0 where the stamps prove nothing: the file was too young, dated in the future, or the record comes
    from an earlier version.
    """

    size: int
    mtime_ns: int
    sha256: str
    ctime_ns: int = 0
    inode: int = 0

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Hash ``path``."""
        stat = path.stat()
        latest = max(stat.st_mtime_ns, stat.st_ctime_ns)
        ctime = stat.st_ctime_ns if latest + _SETTLED < time.time_ns() else 0
        return cls(stat.st_size, stat.st_mtime_ns, sha256_of_file(path), ctime, stat.st_ino)

    def unchanged(self, path: Path) -> bool:
        """True when size, both time stamps and inode are the recorded ones and none lies in the future.

        A write through the file system changes the ctime, which no program can set; a clock that jumped back shows
        as a stamp in the future. What this cannot see is a disk that loses a bit by itself.
        """
        stat = path.stat()
        now = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        stamps = max(stat.st_mtime_ns, stat.st_ctime_ns)
        return (
            self.ctime_ns > 0
            and now == (self.size, self.mtime_ns, self.ctime_ns, self.inode)
            and (stamps < time.time_ns())
        )

    def verified(self, path: Path, *, trust_stamps: bool) -> FileState | None:
        """The present state of ``path`` if it has the recorded content, else None.

        With ``trust_stamps`` a file that is ``unchanged`` is not read again.
        """
        try:
            if trust_stamps and self.unchanged(path):
                return self
            if path.stat().st_size != self.size:
                return None
            found = FileState.of(path)
        except FileNotFoundError:
            return None
        return found if found.sha256 == self.sha256 else None


@dataclass(frozen=True)
class CaseRecord:
    """One stylized case: its sources by file name, and the result."""

    sources: dict[str, FileState]
    result: FileState

    @classmethod
    def read(cls, path: Path) -> CaseRecord | None:
        """The record at ``path``; None when there is none or when it is damaged (it will then be made anew)."""
        if not path.is_file():
            return None
        try:
            value = read_sealed_json(path, what="A case's record", unsealed=("sources", "result"))
            sources = {name: FileState(**state) for name, state in value["sources"].items()}
            return cls(sources, FileState(**value["result"]))
        except (OsasisError, AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return None

    def write(self, path: Path) -> None:
        """Write atomically, with a checksum of its own."""
        write_sealed_json(path, asdict(self))

    def verified(self, sources: list[Path], result: Path) -> CaseRecord | None:
        """The record with present time stamps if neither sources nor result have changed, else None.

        The result is always hashed: it is what a network is about to be trained on. Sources are hashed only when
        their stamps differ: a source that rotted after its result was made cannot reach the training, and when the
        result has to be made again it is read, and compared with nnU-Net's own preprocessed file.
        """
        if set(self.sources) != {source.name for source in sources}:
            return None
        seen = {source.name: self.sources[source.name].verified(source, trust_stamps=True) for source in sources}
        found = self.result.verified(result, trust_stamps=False)
        if found is None:
            return None
        whole = {name: state for name, state in seen.items() if state is not None}
        return CaseRecord(whole, found) if len(whole) == len(seen) else None


def append_event(path: Path, event: str, **details: Any) -> None:
    """Append one line to a JSONL log. Raises ``OsasisError`` when it cannot be written."""
    append_jsonl(path, {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **details})
