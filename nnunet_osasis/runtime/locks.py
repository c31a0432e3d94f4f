"""One process at a time in an output folder: locks that end with their process, on network file systems too.

``flock`` through ``filelock``: the kernel releases it however a process ends, and NFS passes it between machines.
Where a file system knows no locks, a marker file with the owner's machine and process takes its place; of an owner on
this machine it is known when it is gone, of one on another machine the user has to say so by deleting the marker.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.runtime.storage import clear_leftovers, host_name, write_error

logger = logging.getLogger(__name__)

LOCK = ".osasis.lock"

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)

_held: dict[tuple[Path, int], int] = {}
"""How often each lock file is held, by thread: who holds a folder may call what takes it again."""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def output_lock(
    folder: str | Path,
    command: str,
    *,
    wait: bool = False,
    name: str = LOCK,
    say: Callable[[str], None] = _say,
    patience: float = 0.0,
) -> Iterator[None]:
    """Hold ``folder`` (made if need be) for ``command`` and clear what killed runs left half-written directly in it.

    Args:
        wait: wait for another process, saying so once, as caches do; else it is refused at once.
        patience: seconds to wait before saying so.
        name: the lock's file name; ``<name>.owner`` beside it says who has it, while somebody has it.

    The same thread may take a lock it has again. Raises ``OsasisError`` when another process has the folder or when
    the folder cannot be written.
    """
    path = Path(folder).resolve() / name
    key = (path, threading.get_ident())
    if _held.get(key):
        _held[key] += 1
        try:
            yield
        finally:
            _held[key] -= 1
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquire(path, wait, say, patience)
    except OSError as error:
        raise write_error(path.parent, error) from error
    owner = _owner_file(path)
    _held[key] = 1
    try:
        atomic_write_json(
            owner,
            {
                "process": os.getpid(),
                "machine": host_name(),
                "command": command,
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )
        clear_leftovers(path.parent)
        yield
    finally:
        del _held[key]
        try:
            owner.unlink(missing_ok=True)
        finally:
            lock.release()


def _owner_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.owner")


def held_by(folder: str | Path, name: str) -> str | None:
    """Who holds the lock ``name`` of ``folder``, in words; None when nobody does.

    To ask, the lock is taken for a moment: only whoever holds what owners need to take it may ask.
    """
    path = Path(folder).resolve() / name
    try:
        _acquire(path, False, _say).release()
    except OsasisError:
        return owner_of(path)
    return None


def _acquire(path: Path, wait: bool, say: Callable[[str], None], patience: float = 0.0) -> BaseFileLock:
    """The lock at ``path``, taken."""
    kind: type[BaseFileLock] = FileLock
    lock = kind(path)
    try:
        return _take(lock)
    except Timeout:
        pass
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        logger.warning("The file system of %s knows no locks; a marker file takes their place.", path.parent)
        kind = SoftFileLock
        lock = kind(path.with_name(f"{path.name}.marker"))
        try:
            return _take(lock)
        except Timeout:
            pass
    marker = Path(lock.lock_file) if kind is SoftFileLock else None
    if not wait:
        remedy = "Wait for it, or choose another output folder."
        if marker is not None:
            remedy += f" If that process is gone, delete {marker}."
        raise OsasisError(
            "An output folder serves one process at a time",
            found=f"{owner_of(path)} at work in {path.parent}",
            remedy=remedy,
        )
    try:
        lock.acquire(timeout=patience, poll_interval=0.02)
        return lock
    except Timeout:
        pass
    say(
        f"Waiting: {owner_of(path)} at work in {path.parent}"
        + ("" if marker is None else f" (if it is gone, delete {marker})")
    )
    lock.acquire(poll_interval=0.2)
    return lock


def _take(lock: BaseFileLock) -> BaseFileLock:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of filelock turn to a marker by themselves, and say so
        lock.acquire(timeout=0)
    return lock


def owner_elsewhere(path: Path) -> bool:
    """Whether the lock at ``path`` was taken on another machine and not given back: killed there, or at work where
    machines do not see each other's locks."""
    try:
        return bool(json.loads(_owner_file(path).read_text(encoding="utf-8"))["machine"] != host_name())
    except (OSError, ValueError, KeyError, TypeError):  # given back, or torn: then the lock alone counts
        return False


def owner_of(path: Path) -> str:
    """Who has the lock at ``path``, in words; the file that says so may be a moment late, or gone already."""
    try:
        found = json.loads(_owner_file(path).read_text(encoding="utf-8"))
        return f"process {found['process']} on {found['machine']} ({found['command']}, since {found['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it is only for the message
        return "another process"
