"""One stylized case: read, restyled, judged, normalized, and put in its place in the cache.

One stylized case as nnU-Net stores its own: same format, same blocks and chunks.

What is known about every stylized case: from which bytes it was made, and which bytes it is.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import blosc2
import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, infer_dataset_class, nnUNetDatasetBlosc2

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import Decision, StructureGate
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.restyle import restyle_with
from nnunet_osasis.nnunet.segmenter import NnunetSegmenter
from nnunet_osasis.runtime.records import append_jsonl, read_sealed_json, write_sealed_json
from nnunet_osasis.runtime.storage import sha256_of_file, sync_folder
from nnunet_osasis.transfer import StyleTransfer

T = TypeVar("T")

GRID = 64
"""Bytes: torch's own grid."""


@dataclass(frozen=True)
class Made:
    """A case that is in its place; what is left to do is to put it on record."""

    record: CaseRecord
    decisions: list[Decision]
    seconds: float


@dataclass
class StylizedCaseMaker:
    """Makes stylized cases, in this process or in a worker.

    Attributes:
        cases: as :func:`nnunet_osasis.nnunet.cases.open_cases` gives them.
        folder: where images go. workbench: where they are until they are whole; a subfolder for each.
    """

    setup: NnunetConfiguration
    cases: Any
    transfer: StyleTransfer
    strength: float | None
    gate: StructureGate | None
    folder: Path
    workbench: Path

    def to(self, device: str) -> None:
        """Move the transfer's networks and the gate's segmenter to a device, if they have any."""
        if hasattr(self.transfer, "to"):
            self.transfer.to(device)
        if self.gate is not None and isinstance(self.gate.segmenter, NnunetSegmenter):
            self.gate = replace(self.gate, segmenter=self.gate.segmenter.on(device))

    def __call__(self, key: str) -> Made:
        """Stylize a case and put its image in place.

        Raises ``OsasisError`` when its raw images are gone, unreadable or change meanwhile, when the transfer
        misbehaves, and when the image cannot be written.
        """
        start = perf_counter()
        sources = self.source_states(key)
        decisions: list[Decision] = []
        restyle = restyle_with(
            self.transfer, self.strength, gate=self.gate, decided=decisions.append,
            ignored=self.setup.plans.get_label_manager(self.setup.dataset_json).ignore_label,
        )  # fmt: skip
        try:
            image = self.cases.preprocessed(key, restyle)
        except OSError as error:
            self.source_states(key)  # says so when they are gone
            raise OsasisError(
                "The raw images must be readable",
                found=f"{error} for case {key}",
                remedy="Replace the file; finished cases are kept.",
            ) from error
        require_unchanged(key, sources, self.source_states(key))
        return Made(CaseRecord(sources, self._save(key, image)), decisions, perf_counter() - start)

    def source_files(self, key: str) -> list[Path]:
        """What the result depends on; the gate also looks at the labels."""
        return source_files(self.cases, key, labels=self.gate is not None)

    def source_states(self, key: str) -> dict[str, FileState]:
        """The files' present states by name. Raises ``OsasisError`` when one is missing."""
        return source_states(self.source_files(key))

    def _save(self, key: str, image: np.ndarray) -> FileState:
        """Write ``image`` ``(C, Z, Y, X)`` on the workbench and move it into place when it is whole."""
        layout, bench = layout_of(self.setup, key, image), self.workbench / key
        try:
            bench.mkdir(parents=True, exist_ok=True)
            written = write_case(bench, key, image, layout)
            state = FileState.of(written)
            os.replace(written, self.folder / written.name)
            sync_folder(self.folder)
        except (OSError, RuntimeError) as error:  # the latter is blosc2's way to say that it could not write
            raise cannot_write(self.folder, error) from error
        finally:
            shutil.rmtree(bench, ignore_errors=True)
        return state


def aligned(stylizer: T) -> T:
    """The same object, CPU weights that lie off the memory grid, as those mapped from a file do, copied onto it.

    Libraries take other kernels for them, whose last bits differ from those of a copy in another process.
    """
    for module in [value for value in vars(stylizer).values() if isinstance(value, torch.nn.Module)]:
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.device.type == "cpu" and tensor.data_ptr() % GRID:
                tensor.data = tensor.data.clone()
    return stylizer


def source_files(cases: Any, key: str, *, labels: bool) -> list[Path]:
    """The files a case is made from, those of its labels among them where ``labels`` matter."""
    files = cases.source_files(key)
    more = cases.label_files(key) if labels else []
    return [*files, *(path for path in more if path not in files)]


def source_states(files: list[Path]) -> dict[str, FileState]:
    """Present states by file name. Raises ``OsasisError`` when a file is missing."""
    try:
        return {path.name: FileState.of(path) for path in files}
    except FileNotFoundError as error:
        raise OsasisError(
            "Every training case must have its images in nnUNet_raw",
            found=f"no file {error.filename}",
            remedy="Put it back, or take the case out of splits_final.json; finished cases are kept.",
        ) from error


def require_unchanged(key: str, before: dict[str, FileState], now: dict[str, FileState]) -> None:
    """Raise ``OsasisError`` when the files of a case changed while it was made."""
    if {name: state.sha256 for name, state in before.items()} != {name: state.sha256 for name, state in now.items()}:
        raise OsasisError(
            "The raw images must not change while they are stylized",
            found=f"another content of {key}'s files than before",
            remedy="Start again when they are complete; finished cases are kept.",
        )


def cannot_write(folder: Path, error: Exception) -> OsasisError:
    """What is said when the cache could not be written."""
    return OsasisError(
        "The cache of stylized cases must be writable",
        found=f"{error} at {folder}",
        remedy="Free some disk space or change the folder's permissions and start again; finished cases are kept.",
    )


Layout = tuple[tuple[int, ...], tuple[int, ...]]
"""Blocks and chunks."""


def layout_of(setup: NnunetConfiguration, key: str, image: np.ndarray) -> Layout:
    """Those of the original file, so that reading a patch costs the same.

    Raises ``OsasisError`` when the original has another shape than ``image`` ``(C, Z, Y, X)``.
    """
    folder = str(setup.preprocessed_folder / setup.manager.data_identifier)
    original = infer_dataset_class(folder)(folder, [key]).load_case(key)[0]
    if tuple(original.shape) != image.shape:
        raise OsasisError(
            f"A stylized case must have its original's shape {tuple(original.shape)}",
            found=f"{image.shape} for {key}",
            remedy=f"The raw image changed: run nnUNetv2_preprocess -d {int(setup.dataset[7:10])} again.",
        )
    if hasattr(original, "chunks") and hasattr(original, "blocks"):
        return tuple(original.blocks), tuple(original.chunks)
    return comp_blosc2_params(image.shape, tuple(setup.manager.patch_size), image.itemsize)


def write_case(folder: Path, key: str, image: np.ndarray, layout: Layout) -> Path:
    """Write ``image`` ``(C, Z, Y, X)`` through nnU-Net into ``folder``, read it back, and flush it to the disk.

    Raises ``OSError`` or blosc2's ``RuntimeError`` when it cannot be written.
    """
    blocks, chunks = layout
    unused = np.zeros((1, 1, 1, 1), np.int8)  # save_case also wants a segmentation; it stays where it is
    written = folder / f"{key}.b2nd"
    nnUNetDatasetBlosc2.save_case(
        image,
        unused,
        {},
        str(folder / key),
        chunks=chunks,
        blocks=blocks,
        chunks_seg=unused.shape,
        blocks_seg=unused.shape,
    )
    if not np.array_equal(blosc2.open(urlpath=str(written), mode="r")[:], image):
        raise OSError(f"{written} reads back differently")
    with open(written, "rb+") as stream:
        os.fsync(stream.fileno())
    return written


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
            value = read_sealed_json(path, what="A case's record")
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
