"""One process at a time in an output folder: locks that end with their process, on network file systems too.

``filelock`` takes them by ``flock``: the kernel releases it however a process ends, and NFS passes it between machines.
On a file system without locks a marker file takes its place; ``filelock`` knows when its owner on this machine is gone,
and the user has to delete the marker of an owner that was killed on another machine.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.records import atomic_write_json, read_json
from nnunet_osasis.runtime.storage import host_name, place, remove_stale_temporaries, write_error

logger = logging.getLogger(__name__)

LOCK = ".osasis.lock"
"""Name of the lock file of an output folder."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
"""Error numbers of file systems without locks; ``filelock`` itself knows the first one only."""

_held: set[tuple[Path, int]] = set()
"""Lock files that are held, by thread: who holds a folder may call what takes it again."""


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
    """Hold ``folder`` and remove the temporary files that killed processes left directly in it.

    The same thread may take a lock it holds again.

    Args:
        folder: made if need be.
        command: who holds it, for the messages of others.
        wait: wait for another process, as caches do, and say so once; else the folder is refused at once.
        name: the lock's file name; the file ``<name>.owner`` beside it names the owner while there is one.
        say: called with the line that says who is waited for.
        patience: seconds to wait before saying so.

    Raises:
        OsasisError: another process holds the folder, or the folder cannot be written.
    """
    path = Path(folder).resolve() / name
    key = (path, threading.get_ident())
    if key in _held:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquire(path, wait, say, patience)
    except OSError as error:
        raise write_error(path.parent, error) from error
    owner = {
        "process": os.getpid(),
        "machine": host_name(),
        "place": place(),
        "command": command,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _held.add(key)
    try:
        atomic_write_json(_owner_file(path), owner)
        remove_stale_temporaries(path.parent)
        yield
    finally:
        _held.remove(key)
        try:
            _owner_file(path).unlink(missing_ok=True)
        finally:
            lock.release()


def _acquire(path: Path, wait: bool, say: Callable[[str], None] = _say, patience: float = 0.0) -> BaseFileLock:
    lock: BaseFileLock = FileLock(path)
    hint = ""
    try:
        is_free = _take(lock, 0)
    except (NotImplementedError, OSError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in _NO_LOCKS:
            raise
        logger.warning("The file system of %s knows no locks; a marker file takes their place.", path.parent)
        lock = SoftFileLock(path.with_name(f"{path.name}.marker"))
        hint = f" If that process is gone, delete {lock.lock_file}."
        is_free = _take(lock, 0)
    if not (is_free or wait):
        raise OsasisError(
            "An output folder serves one process at a time",
            found=f"{owner_of(path)} at work in {path.parent}",
            remedy=f"Wait for it, or choose another output folder.{hint}",
        )
    if not is_free and not _take(lock, patience):
        say(f"Waiting: {owner_of(path)} at work in {path.parent}.{hint}")
        _take(lock, -1)
    return lock


def _take(lock: BaseFileLock, timeout: float) -> bool:
    """Whether the lock could be taken within ``timeout`` seconds; -1 waits as long as it takes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer versions of filelock turn to a marker by themselves, and say so
        try:
            lock.acquire(timeout=timeout, poll_interval=0.05)
        except Timeout:
            return False
    return True


def held_by(folder: str | Path, name: str) -> str | None:
    """Who holds the lock ``name`` of ``folder``, in words; None when nobody does.

    To find out, the lock is taken for a moment: only whoever holds what owners need to take it may ask.
    """
    path = Path(folder).resolve() / name
    try:
        _acquire(path, wait=False).release()
    except OsasisError:
        return owner_of(path)
    return None


def _owner_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.owner")


def _owner(path: Path) -> dict[str, Any]:
    """The note of who has the lock at ``path``; empty when the lock was given back, or when the note is torn."""
    try:
        return read_json(_owner_file(path), what="The owner of a lock")
    except OsasisError:  # the lock alone counts; the note is for messages
        return {}


def owner_elsewhere(path: Path) -> bool:
    """Whether the lock at ``path`` was taken on another machine, or in another container, and not given back.

    Its owner was killed there, or is at work where machines do not see each other's locks.
    """
    return _owner(path).get("place", place()) != place()


def owner_of(path: Path) -> str:
    """Who has the lock at ``path``, in words."""
    owner = _owner(path)
    if not {"process", "machine", "command", "since"} <= set(owner):
        return "another process"
    return f"process {owner['process']} on {owner['machine']} ({owner['command']}, since {owner['since']})"
