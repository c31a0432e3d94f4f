"""The caches of stylized cases on this machine: whose they are, how large, when last used; and how they are deleted."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.locks import held_by, output_lock
from nnunet_osasis.runtime.records import read_sealed_json
from nnunet_osasis.runtime.storage import locked

LOCK = "lock"
"""Name of the lock in a cache's records, which whoever makes cases holds."""

USERS = "users"
"""Name of the file in a cache's records on which every training holds a shared lock (``flock``) to its end."""

_NAME = re.compile(r"(?P<configuration>.+)_osasis_[0-9a-f]{12}")


@dataclass(frozen=True)
class CacheFacts:
    """One cache.

    Attributes:
        folder: of the stylized images; its records lie beside it.
        dataset: such as ``Dataset501_Polyps``.
        configuration: nnU-Net's data identifier, such as ``nnUNetPlans_2d``.
        transfer: fingerprint of the stylizer (or other transfer) that can use it; "unknown" if the records are damaged.
        usable_with: the known stylizer folders of that fingerprint.
        strength: in [0, 1]; None is the stylizer's own.
        cases: number of stylized cases.
        megabytes: on the disk, records included.
        last_used: when a training last asked for it, UTC.
        in_use: whether it is being made, or trained on.
    """

    folder: str
    dataset: str
    configuration: str
    transfer: str
    usable_with: list[str]
    strength: float | None
    cases: int
    megabytes: float
    last_used: str
    in_use: bool

    def to_json(self) -> dict[str, Any]:
        """For the command's output."""
        return asdict(self)


def records_of(folder: Path) -> Path:
    """Where the records of the cache ``folder`` are."""
    return folder.with_name(f"{folder.name}_records")


def find_caches(preprocessed: Path, stylizers: Mapping[str, Iterable[Path]]) -> list[CacheFacts]:
    """Every cache in ``nnUNet_preprocessed``, the one that was not used for longest first.

    Args:
        preprocessed: the folder.
        stylizers: known stylizer folders by their fingerprint.
    """
    folders = [path for path in preprocessed.glob("Dataset*/*_osasis_*") if _NAME.fullmatch(path.name)]
    caches = [_facts(folder, stylizers) for folder in folders if folder.is_dir()]
    return sorted(caches, key=lambda cache: (cache.last_used, cache.folder))


def _facts(folder: Path, stylizers: Mapping[str, Iterable[Path]]) -> CacheFacts:
    records, name = records_of(folder), _NAME.fullmatch(folder.name)
    assert name is not None  # noqa: S101 (the caller matched it)
    try:
        identity = read_sealed_json(records / "cache.json", what="A cache's record")
    except OsasisError:  # killed before it was written, or damaged
        identity = {}
    files = [path for place in (folder, records) for path in place.rglob("*") if path.is_file()]
    log = records / "log.jsonl"
    used = (log if log.is_file() else folder).stat().st_mtime
    transfer, strength = str(identity.get("transfer", "unknown")), identity.get("strength")
    return CacheFacts(
        folder=str(folder),
        dataset=folder.parent.name,
        configuration=name["configuration"],
        transfer=transfer,
        usable_with=[str(path) for path in stylizers.get(transfer, ())],
        strength=strength if isinstance(strength, int | float) else None,
        cases=sum(path.suffix == ".b2nd" and path.parent == folder for path in files),
        megabytes=round(sum(path.stat().st_size for path in files) / 1e6, 3),
        last_used=datetime.fromtimestamp(used, UTC).isoformat(timespec="seconds"),
        in_use=is_in_use(records),
    )


def is_in_use(records: Path) -> bool:
    """Whether a process makes cases of the cache, a training on this file system holds it, or it cannot be told."""
    if not records.is_dir():
        return False
    if not os.access(records, os.W_OK):
        return True
    with locked(records / USERS, alone=True) as free:
        return not free or held_by(records, LOCK) is not None


def delete_cache(folder: Path) -> None:
    """Delete a cache and its records. Raises ``OsasisError`` when it is in use."""
    records = records_of(folder)
    records.mkdir(exist_ok=True)
    with output_lock(records, "deleting a cache", name=LOCK), locked(records / USERS, alone=True) as free:
        if not free:
            raise OsasisError("A cache that is in use must stay", found=f"a training on {folder}", remedy="Let it end.")
        (records / "cache.json").unlink(missing_ok=True)
        shutil.rmtree(records / "cases", ignore_errors=True)  # images without records are made anew
        shutil.rmtree(folder)
    shutil.rmtree(records)


def preprocessed_root() -> Path:
    """``nnUNet_preprocessed``. Raises ``OsasisError`` when the variable is not set, or names no folder."""
    path = Path(os.environ.get("nnUNet_preprocessed", ""))
    if str(path) == "." or not path.is_dir():
        raise OsasisError(
            "nnUNet_preprocessed must name a folder", found=str(path), remedy="Set it as for nnUNetv2_train."
        )
    return path
