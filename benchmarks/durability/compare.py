"""What two outputs have in common, and whether every file of a killed run is whole."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

TIMES = ("mtime_ns", "ctime_ns", "inode", "peak_memory_mib", "time", "since")
"""Entries of JSON files that say when, how long or on which inode; a file's seal covers them and goes with them."""


def is_bookkeeping(path: Path) -> bool:
    """Locks, and what a living or killed process is in the middle of writing: never read as results."""
    names = [part for part in path.parts if part.startswith(".osasis-") or part == "unfinished"]
    return bool(names) or path.name.endswith((".lock", ".lock.owner", "lock.owner")) or path.name == "lock"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in (*TIMES, "seal") and not k.startswith("seconds")}
        return {key: _plain(item) for key, item in kept.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def contents(folder: Path, left_out: dict[str, str]) -> dict[str, str]:
    """SHA-256 by relative path; of JSON and JSONL files without what says how long things took."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if is_bookkeeping(path.relative_to(folder)) or any(fnmatch(name, pattern) for pattern in left_out):
            continue
        data = path.read_bytes()
        if path.suffix == ".json":
            data = json.dumps(_plain(json.loads(data)), sort_keys=True).encode()
        elif path.name == "audit.jsonl":  # a case that was made again after a kill has a second line, which counts
            rows = [_plain(json.loads(line)) for line in data.splitlines() if line.strip()]
            data = json.dumps({row["case"]: row for row in rows}, sort_keys=True).encode()
        elif path.suffix == ".jsonl":
            data = json.dumps([_plain(json.loads(line)) for line in data.splitlines()]).encode()
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def torn_files(folder: Path) -> tuple[int, list[str]]:
    """How many files of a killed run were opened, and those that are not whole although they bear their final name."""
    seen, torn = 0, []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if is_bookkeeping(path.relative_to(folder)) or path.suffix == ".jsonl":  # logs may end in a torn line
            continue
        seen += 1
        try:
            _open(path)
        except Exception as error:  # whatever a library says about a file it cannot read
            torn.append(f"{path.relative_to(folder)}: {type(error).__name__}: {error}")
    return seen, torn


def _open(path: Path) -> None:
    data = path.read_bytes()
    if path.suffix == ".json":
        json.loads(data)
    elif path.suffix == ".png":
        from PIL import Image

        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
    elif path.suffix == ".npz":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if archive.testzip() is not None:
                raise ValueError("an entry does not fit its checksum")
    elif path.suffix == ".safetensors":
        from safetensors.torch import load

        load(data)
    elif path.suffix == ".b2nd":
        import blosc2

        blosc2.open(str(path), mode="r")[:]
