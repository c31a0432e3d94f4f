"""Files that are either whole or absent: atomic writes, checked weights, hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError


def write_error(path: Path, error: OSError) -> OsasisError:
    """The ``OsasisError`` that says what kept ``path`` from being written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        rule, remedy = "There must be room on the disk", "Free some space and run the same command again."
    else:
        rule, remedy = "The output must be writable", "Choose another folder or change its permissions."
    return OsasisError(rule, found=f"{error.strerror} at {path}", remedy=f"{remedy} What was finished before is kept.")


def atomic_write(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let ``write`` fill a temporary file beside ``path``, flush it to disk, then rename it into place.

    The temporary name keeps the suffix (libraries choose a format by it) and starts with a dot.
    Raises ``OsasisError`` when the disk is full or the folder cannot be written; ``path`` is then as it was before.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=f".tmp{''.join(path.suffixes[-2:])}", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        with open(temporary, "rb+") as stream:
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; results should be as shared as others
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
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


def atomic_write_json(path: str | Path, value: Any) -> Path:
    """Write ``value`` as indented JSON with sorted keys, atomically."""
    return atomic_write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: str | Path, *, what: str) -> dict[str, Any]:
    """Read a JSON object. ``what`` names it in the ``OsasisError`` raised when it is missing or damaged."""
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OsasisError(f"{what} must exist", found=f"no file {path}", remedy="Check the path.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise OsasisError(
            f"{what} must be readable JSON", found=f"{error} in {path}", remedy="Make it anew."
        ) from error
    if not isinstance(value, dict):
        raise OsasisError(f"{what} must be a JSON object", found=type(value).__name__, remedy="Make it anew.")
    return value


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
