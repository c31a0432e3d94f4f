"""Files that are either whole or absent, and known by their hash; temporary files of killed processes are removed.

The name of every temporary file says which process made it, so that no living process loses one.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from nnunet_osasis.errors import OsasisError

logger = logging.getLogger(__name__)

FOREIGN_AGE = 24 * 3600.0
"""Age in seconds from which a temporary of another place, whose processes cannot be listed, may be stale."""

_NAME = re.compile(r"\.osasis-(?P<place>[0-9a-f]{12})-(?P<pid>\d{1,9})-(?P<started>\d{1,19})-")


_FORMER = re.compile(r"\.osasis-[A-Za-z0-9_.]+-\d{1,9}-")
"""Names that earlier versions gave: they do not say enough to look their owner up."""


def host_name() -> str:
    """This machine's name with the characters a file name may have everywhere."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", socket.gethostname()) or "unknown"


def place() -> str:
    """Where process numbers mean what they mean here: one boot of one machine, and one of its process namespaces.

    Containers may share a name and not their processes. Where the system does not say, the machine's name has to do.
    """
    facts = [host_name()]
    with contextlib.suppress(OSError):
        facts += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(os.stat("/proc/self/ns/pid").st_ino)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _started(pid: int) -> int | None:
    """When a process of this place began, in the system's own units: numbers are used again.

    Returns None when there is no such process, and 0 when the system does not say.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):  # no Linux, gone, or another user's and hidden
        if not psutil.pid_exists(pid):
            return None
    try:
        return 0 if os.path.exists("/proc/self/stat") else int(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0


def temporary_prefix() -> str:
    """How the name of every temporary of this process begins: ``.osasis-<place>-<process>-<start>-``."""
    return f".osasis-{place()}-{os.getpid()}-{_started(os.getpid())}-"


@contextlib.contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """Yield a folder in ``beside`` that is gone afterwards, under a name that says whose it is.

    It is locked (``flock``) as long as its process lives, for processes that cannot look that one up.
    """
    folder = Path(tempfile.mkdtemp(prefix=temporary_prefix(), dir=beside))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, *, alone: bool = False) -> Iterator[bool]:
    """Hold a shared lock on a folder, or ask for it ``alone``; yields whether it could be had."""
    if os.name != "posix":
        yield True
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            free = True
        except OSError as error:  # held; or a file system without locks, where the age alone counts
            free = error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        yield free
    finally:
        os.close(handle)


def _is_stale(path: Path) -> bool:
    """Whether the owner of a temporary is known to be gone, or, elsewhere, silent for a day and without its lock."""
    name = _NAME.match(path.name)
    if name is not None and name["place"] == place():
        started = _started(int(name["pid"]))
        return started is None or (started != 0 and started != int(name["started"]))
    if name is None and not _FORMER.match(path.name):
        return False
    try:
        if time.time() - path.stat().st_mtime <= FOREIGN_AGE:
            return False
        with _locked(path, alone=True) as free:
            return free
    except OSError:  # finished meanwhile, or not ours to look at
        return False


def remove_stale_temporaries(folder: str | Path, *, recursive: bool = False) -> int:
    """Delete the half-written files of killed processes in ``folder``; returns how many.

    A file is stale when its name says a process of this place that no longer runs, or when it is another place's,
    older than a day, and nobody holds its lock. Everything else stays. A folder that cannot be written is left as it
    is: the write that follows says so.
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


NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk, or of a full share of it."""


def write_error(path: Path, error: OSError) -> OsasisError:
    """The ``OsasisError`` that says what kept ``path`` from being written."""
    if error.errno in NO_ROOM:
        rule, remedy = "There must be room on the disk", "Free some space and run the same command again."
    elif error.errno == errno.EFBIG:
        rule, remedy = "Files must be allowed to be as large as they are", "Raise the limit (ulimit -f)."
    else:
        rule, remedy = "The output must be writable", "Choose another folder or change its permissions."
    return OsasisError(rule, found=f"{error.strerror} at {path}", remedy=f"{remedy} What was finished before is kept.")


def concerns_others(error: OSError, folder: Path) -> bool:
    """Whether an operation failed on files none of which lie in ``folder``: what is read, not what is written."""
    names = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)]
    inside = (Path(os.fsdecode(name)).absolute().is_relative_to(folder.absolute()) for name in names)
    return bool(names) and not any(inside)


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
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(temporary_folder(path.parent))
        except OSError as error:
            raise write_error(path, error) from error
        temporary, filled = folder / path.name, False
        try:
            write(temporary)
            filled = True
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
            share_as_usual(temporary, 0o666)
            os.replace(temporary, path)
            sync_folder(path.parent)
        except OSError as error:
            if not filled and concerns_others(error, folder):
                raise
            raise write_error(path, error) from error
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
