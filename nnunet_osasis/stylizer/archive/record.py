"""The record of an output folder: a log per run, merged into one sealed manifest when a run ends.

While a run is at work, each finished image is one line of ``.osasis_parts/part-<k>-of-<n>.jsonl``, with a checksum of
its own: a cost that does not grow with the number of images. Parts that are at work at once have a log each (and each
its own audit), so that no line depends on locks or on appends of several machines to one file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.audit import audited_results, path_in
from nnunet_osasis.runtime.distributed import Shard
from nnunet_osasis.runtime.locks import owner_elsewhere
from nnunet_osasis.runtime.records import (
    append_jsonl,
    append_sealed_line,
    iter_jsonl,
    read_sealed_json,
    write_sealed_json,
)
from nnunet_osasis.runtime.storage import FOREIGN_AGE, sha256_of_json, write_error

logger = logging.getLogger(__name__)

MANIFEST = "osasis_manifest.json"
"""File of an output folder: settings, and digests of every image, its mask and its result."""

PARTS = ".osasis_parts"
"""Subfolder of an output folder: logs, audits and locks of parts at work, or killed. Gone when all is merged."""

_AUDIT = "-audit.jsonl"
"""Ending of the file name of a part's audit."""


def log_of(output: Path, share: Shard) -> Path:
    """The log of a share's run."""
    return output / PARTS / f"{share.name}.jsonl"


def audit_of(output: Path, share: Shard) -> Path:
    """Where a share's run writes its audit: the folder's own, or one of its own that is merged into that later."""
    return path_in(output) if share.count == 1 else output / PARTS / f"{share.name}{_AUDIT}"


def lock_of(share: Shard) -> str:
    """The name of a share's lock in the folder of parts."""
    return f"{share.name}.lock"


def logs_in(output: Path) -> dict[Shard, Path]:
    """All logs that are not merged yet, the one that was written last at the end."""
    logs = []
    for path in (output / PARTS).glob("part-*.jsonl"):
        share = None if path.name.endswith(_AUDIT) else Shard.named(path.name)
        if share is not None:
            with contextlib.suppress(FileNotFoundError):  # merged by another part meanwhile
                logs.append((path.stat().st_mtime_ns, path.name, share, path))
    return {share: path for _, _, share, path in sorted(logs, key=lambda log: log[:2])}


def audits_in(output: Path) -> list[Path]:
    """The folder's audit and those of parts, newest word last.

    A part's that is older than the folder's was merged into it, and is kept when another machine may still write it.
    """
    own, parts = path_in(output), sorted((output / PARTS).glob(f"part-*{_AUDIT}"))
    written = own.stat().st_mtime_ns if own.is_file() else 0
    merged = [path for path in parts if path.stat().st_mtime_ns < written]
    return [*merged, own, *(path for path in parts if path not in merged)]


def digest_of_entry(entry: Mapping[str, str]) -> bytes:
    """16 bytes that stand for an image's entry: all that has to be kept in memory of it."""
    return hashlib.blake2b(json.dumps(entry, sort_keys=True).encode(), digest_size=16).digest()


def read_manifest(output: Path) -> dict[str, Any] | None:
    """The manifest's settings and images; None without one. Raises ``OsasisError`` for a damaged one."""
    if not (output / MANIFEST).is_file():
        return None
    manifest = read_sealed_json(output / MANIFEST, what="The output's manifest")
    images = manifest.setdefault("images", {})
    if not (isinstance(images, dict) and all(isinstance(entry, dict) for entry in images.values())):
        raise OsasisError(
            "The output's manifest must name images and their digests",
            found=f"another form of {output / MANIFEST}",
            remedy="Delete it: every result is then made anew.",
        )
    return {"settings": manifest.get("settings"), "images": images}


def check_settings(recorded: Any, settings: Mapping[str, Any], output: Path) -> None:
    """Raise ``OsasisError`` when ``output`` holds results of another stylizer or other options."""
    if recorded != settings:
        raise OsasisError(
            "The output must not hold results of another stylizer or other options",
            found=f"a manifest of other settings in {output}",
            remedy="Choose another output folder.",
        )


def entries_in(output: Path, settings: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """Every entry on record, of the manifest and of the logs: of one name the last counts.

    A log that is older than the manifest was merged into it (it is kept when another machine may still write it) and
    comes before it. Raises ``OsasisError`` when one of them has other settings, or for a damaged manifest.
    """
    manifest = read_manifest(output)
    written = 0 if manifest is None else (output / MANIFEST).stat().st_mtime_ns
    logs = [(path.stat().st_mtime_ns < written, path) for path in logs_in(output).values()]
    for path in (path for merged, path in logs if merged):
        yield from _entries_of(path, settings, output)
    if manifest is not None:
        check_settings(manifest["settings"], settings, output)
        yield from manifest["images"].items()
    for path in (path for merged, path in logs if not merged):
        yield from _entries_of(path, settings, output)


def _entries_of(log: Path, settings: Mapping[str, Any], output: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for row in _rows_of(log):
        if "settings" in row:
            check_settings(row["settings"], settings, output)
        elif "image" in row:
            yield row["image"], row["entry"]


def _rows_of(log: Path) -> Iterator[dict[str, Any]]:
    """The rows of a run's log; what is none, such as an entry without its digests, is left out and named."""

    def is_row(row: dict[str, Any]) -> bool:
        return "image" not in row or (isinstance(row["image"], str) and isinstance(row.get("entry"), dict))

    return iter_jsonl(log, with_seals=True, accepts=is_row)


def known_digests(
    output: Path, settings: Mapping[str, Any], names: Collection[str], *, gated: bool
) -> dict[str, bytes]:
    """:func:`digest_of_entry` of those of ``names`` that are on record; if ``gated``, in the audit as well."""
    audited: dict[str, str] = {}
    for path in audits_in(output) if gated else ():
        audited |= {case: result for case, result in audited_results(path).items() if case in names}
    known: dict[str, bytes] = {}
    for name, entry in entries_in(output, settings):
        known.pop(name, None)
        if name in names and (not gated or audited.get(name) == entry.get("result")):
            known[name] = digest_of_entry(entry)
    return known


def names_on_record(output: Path) -> set[str]:
    """Results that a log or the manifest speaks of: asked in this order, as logs are merged into the manifest."""
    names: set[str] = set()
    for path in logs_in(output).values():
        names.update(row["image"] for row in _rows_of(path) if "image" in row)
    manifest = read_manifest(output)
    return names if manifest is None else names.union(manifest["images"])


class Log:
    """The log of one run: settings once, then a line per finished image.

    Args:
        output: folder of results.
        share: the part of the images that the run makes.
        work: digest of images and options, for other parts to compare.

    Raises:
        OsasisError: a disk that is full or cannot be written.
    """

    def __init__(self, output: Path, share: Shard, work: str) -> None:
        self.path = log_of(output, share)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path.parent, error) from error
        append_sealed_line(self.path, {"work": work})

    def settings(self, settings: Mapping[str, Any]) -> None:
        """What every entry after this line was made with."""
        append_sealed_line(self.path, {"settings": settings})

    def add(self, name: str, entry: Mapping[str, str]) -> None:
        """An image that is finished: SHA-256 of its source, its mask where the gate looked at one, and its result."""
        append_sealed_line(self.path, {"image": name, "entry": entry})


def work_of(log: Path) -> str | None:
    """The digest of the last run that wrote into a log; None without a whole line that holds one."""
    works = [str(row["work"]) for row in _rows_of(log) if "work" in row]
    return works[-1] if works else None


def drop_damaged_manifest(output: Path) -> None:
    """Delete a damaged manifest, with a warning. To be called by the one run that has ``output`` for itself."""
    try:
        read_manifest(output)
    except OsasisError as error:
        logger.warning("%s Every result is made anew.", error)
        (output / MANIFEST).unlink()


def merge(output: Path) -> None:
    """One manifest and one audit out of all logs, which are then deleted; nothing to do without logs.

    To be called by the one run that has ``output`` for itself: no part may be at work. Killed at any moment, it is
    repeated by the next run and gives the same. What a part left on another machine that did not end in order is merged
    as well, but kept for a day: if machines do not see each other's locks, it may still be written.
    """
    logs = logs_in(output)
    manifest = read_manifest(output)
    lines = (row for path in logs.values() for row in _rows_of(path))
    before = manifest or next((row | {"images": {}} for row in lines if "settings" in row), None)
    if before is not None:
        images = dict(entries_in(output, before["settings"]))
        if images != before["images"]:
            write_sealed_json(output / MANIFEST, {"settings": before["settings"], "images": images})
    _merge_audits(output)
    for share, path in logs.items():
        lock = output / PARTS / lock_of(share)
        if owner_elsewhere(lock) and time.time() - path.stat().st_mtime < FOREIGN_AGE:
            continue
        for done in (output / PARTS / f"{share.name}{_AUDIT}", path, *lock.parent.glob(f"{lock.name}*")):
            done.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # none there, or still in use
        (output / PARTS).rmdir()


def _merge_audits(output: Path) -> None:
    """Append to the folder's audit what is only in those of parts; a row that a killed merge appended is not again."""
    own = path_in(output)
    parts = [path for path in audits_in(output) if path != own]
    if not parts:
        return
    own.parent.mkdir(parents=True, exist_ok=True)
    there = {sha256_of_json(row) for row in iter_jsonl(own)}
    for path in parts:
        for row in iter_jsonl(path):
            if (digest := sha256_of_json(row)) not in there:
                append_jsonl(own, row)
                there.add(digest)
