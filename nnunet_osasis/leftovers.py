"""Temporary files that a killed process left: told by their name, cleared by the next run, never a living one's."""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import time
from pathlib import Path

logger = logging.getLogger(__name__)

FOREIGN_AGE = 24 * 3600.0
"""Seconds after which a temporary file of another machine, whose processes cannot be asked, is taken for left."""
_NAME = re.compile(r"\.osasis-(?P<host>[A-Za-z0-9_.]+)-(?P<pid>\d+)-")


def host_name() -> str:
    """This machine's name with the characters a file name may have everywhere."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", socket.gethostname()) or "unknown"


def temporary_prefix() -> str:
    """How the name of every temporary file and folder of this process begins: ``.osasis-<host>-<pid>-``."""
    return f".osasis-{host_name()}-{os.getpid()}-"


def is_alive(pid: int) -> bool:
    """Whether a process of this machine has that number (maybe another one by now); True where that cannot be asked."""
    if os.name != "posix":  # signal 0 would end it there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and somebody else's
        return True
    return True


def _is_left(path: Path) -> bool:
    named = _NAME.match(path.name)
    if named is None:
        return False
    if named["host"] == host_name():
        return not is_alive(int(named["pid"]))
    try:
        return time.time() - path.stat().st_mtime > FOREIGN_AGE
    except FileNotFoundError:  # finished meanwhile
        return False


def clear_leftovers(folder: str | Path, *, recursive: bool = False) -> int:
    """Delete what killed processes left half-written in ``folder``; returns how many.

    A file is left when its name says a process of this machine that no longer runs, or when it is another machine's
    and older than a day. Everything else, also of processes at work, stays. A folder that cannot be written is left
    as it is: the write that follows says so.
    """
    folder, cleared = Path(folder), 0
    for path in sorted(folder.rglob(".osasis-*") if recursive else folder.glob(".osasis-*")):
        if not _is_left(path):
            continue
        try:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            cleared += 1
        except OSError as error:
            logger.warning("%s was left by a killed run and cannot be deleted: %s", path, error)
    if cleared:
        logger.info("Cleared %d half-written file(s) of killed runs in %s.", cleared, folder)
    return cleared
