"""Files that are either whole or absent, and known by their hash; temporary files of killed processes are removed.

The name of every temporary file says which process made it, so that no living process loses one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from nnunet_osasis.errors import OsasisError

logger = logging.getLogger(__name__)

FOREIGN_AGE = 24 * 3600.0
"""Age in seconds from which a temporary file of another machine, whose processes cannot be listed, is stale."""

_NAME = re.compile(r"\.osasis-(?P<host>[A-Za-z0-9_.]+)-(?P<pid>\d+)-")


def host_name() -> str:
    """This machine's name with the characters a file name may have everywhere."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", socket.gethostname()) or "unknown"


def temporary_prefix() -> str:
    """How the name of every temporary file and folder of this process begins: ``.osasis-<host>-<pid>-``."""
    return f".osasis-{host_name()}-{os.getpid()}-"


def _is_stale(path: Path) -> bool:
    name = _NAME.match(path.name)
    if name is None:
        return False
    if name["host"] == host_name():
        return not psutil.pid_exists(int(name["pid"]))
    try:
        return time.time() - path.stat().st_mtime > FOREIGN_AGE
    except FileNotFoundError:  # finished meanwhile
        return False


def remove_stale_temporaries(folder: str | Path, *, recursive: bool = False) -> int:
    """Delete the half-written files of killed processes in ``folder``; returns how many.

    A file is stale when its name says a process of this machine that no longer runs, or when it is another machine's
    and older than a day. Everything else stays. A folder that cannot be written is left as it is: the write that
    follows says so.
    """
    folder, removed = Path(folder), 0
    for path in sorted(folder.rglob(".osasis-*") if recursive else folder.glob(".osasis-*")):
        if not _is_stale(path):
            continue
        try:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
            removed += 1
        except OSError as error:
            logger.warning("%s was left by a killed run and cannot be deleted: %s", path, error)
    if removed:
        logger.info("Removed %d half-written file(s) of killed runs in %s.", removed, folder)
    return removed


def write_error(path: Path, error: OSError) -> OsasisError:
    """The ``OsasisError`` that says what kept ``path`` from being written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        rule, remedy = "There must be room on the disk", "Free some space and run the same command again."
    elif error.errno == errno.EFBIG:
        rule, remedy = "Files must be allowed to be as large as they are", "Raise the limit (ulimit -f)."
    else:
        rule, remedy = "The output must be writable", "Choose another folder or change its permissions."
    return OsasisError(rule, found=f"{error.strerror} at {path}", remedy=f"{remedy} What was finished before is kept.")


def sync_tree(folder: Path) -> None:
    """``fsync`` every file and folder in ``folder``: for folders that are filled by libraries, then renamed."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            sync_folder(path)
            continue
        with open(path, "rb+") as stream:
            os.fsync(stream.fileno())
    sync_folder(folder)


def sync_folder(folder: str | Path) -> None:
    """Make the names in ``folder`` outlive a power cut, as ``fsync`` does for a file's content (POSIX)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # some network file systems sync by themselves
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(handle)


_UMASK = threading.Lock()
"""Guards the umask of the process: two threads that read it at once would leave it at 0."""


def share_as_usual(path: Path, mode: int) -> None:
    """Give ``path`` the permissions ``mode`` less the umask: ``tempfile`` and some libraries make private files."""
    with _UMASK:
        umask = os.umask(0)
        os.umask(umask)
    path.chmod(mode & ~umask)


def atomic_write(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a file in a temporary folder beside ``path``, flush it, rename it, flush the folder.

    Args:
        path: the file to make; its parents are made if need be.
        write: called with a path of the same name (libraries choose a format by it) in a folder whose name starts
            with a dot; :func:`remove_stale_temporaries` removes it after a kill, with all that libraries put there.

    Raises:
        OsasisError: the disk is full, or the folder cannot be written; ``path`` is then as it was before.
    """
    path = Path(path)
    folder: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=temporary_prefix(), dir=path.parent))
        temporary = folder / path.name
        write(temporary)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        share_as_usual(temporary, 0o666)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return path


def ensure_writable(folder: str | Path) -> Path:
    """Make ``folder`` and write a byte there, so that a long run does not fail at its end. Raises ``OsasisError``."""
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"0")
    except OSError as error:
        raise write_error(folder, error) from error
    return folder


def atomic_write_bytes(path: str | Path, data: bytes) -> Path:
    """Write ``data`` so that a reader sees the old file or the whole new one, never a part."""
    return atomic_write(path, lambda temporary: temporary.write_bytes(data))


def sha256_of_file(path: str | Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256_of_array(array: np.ndarray) -> str:
    """SHA-256 (hex) of an array's dtype, shape and values."""
    array = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(array.tobytes())
    return digest.hexdigest()


def sha256_of_tensors(tensors: Mapping[str, Any], facts: Mapping[str, str]) -> str:
    """SHA-256 (hex) of CPU tensors by name, dtype and shape included, and of the facts kept with them."""
    import torch

    digest = hashlib.sha256(sha256_of_json(dict(facts)).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().reshape(-1).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def save_tensors(path: str | Path, tensors: Mapping[str, Any]) -> Path:
    """Write tensors as safetensors, atomically. Same tensors, same bytes."""
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    return atomic_write(path, lambda temporary: save_file(whole, str(temporary)))


def load_tensors(path: str | Path, *, what: str) -> dict[str, Any]:
    """Read safetensors. Raises ``OsasisError`` naming ``what`` when the file is missing, truncated or foreign."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise OsasisError(f"{what} must exist", found=f"no file {path}", remedy="Check the folder, or make it anew.")
    try:
        return load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise OsasisError(
            f"{what} must be a whole safetensors file",
            found=f"{error} in {path}",
            remedy="The file is truncated or of another format: copy it again or make it anew.",
        ) from error
