"""One stylized case: restyled, written as nnU-Net writes its own, and recorded with the files it was made from."""

from __future__ import annotations

import errno
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, infer_dataset_class, nnUNetDatasetBlosc2

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import Decision, StructureGate
from nnunet_osasis.nnunet.cases import Cases
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.restyle import restyle_with
from nnunet_osasis.nnunet.segmenter import NnunetSegmenter
from nnunet_osasis.runtime.records import append_jsonl, read_sealed_json, write_sealed_json
from nnunet_osasis.runtime.storage import atomic_write, sha256_of_file
from nnunet_osasis.transfer import StyleTransfer

SETTLING_TIME_NS = 2_000_000_000
"""Age in nanoseconds below which a file may change again without another time stamp."""


@dataclass(frozen=True)
class CaseResult:
    """A stylized case whose image is in the cache folder, not yet on record.

    Attributes:
        record: sources and result.
        decisions: what the gate decided; empty without a gate.
        seconds: how long it took.
    """

    record: CaseRecord
    decisions: list[Decision]
    seconds: float


@dataclass
class StylizedCaseMaker:
    """Makes stylized cases, in this process or in a worker.

    Attributes:
        setup: the nnU-Net configuration.
        cases: the training cases, from :func:`nnunet_osasis.nnunet.cases.open_cases`.
        transfer: the style transfer.
        strength: how far to stylize, in [0, 1]; None takes the default of the transfer.
        gate: compares the results with the originals; None accepts everything.
        folder: the cache folder, which receives the images.
    """

    setup: NnunetConfiguration
    cases: Cases
    transfer: StyleTransfer
    strength: float | None
    gate: StructureGate | None
    folder: Path

    def to(self, device: str) -> None:
        """Move the transfer's networks and the gate's segmenter to a device, if there are any."""
        if hasattr(self.transfer, "to"):
            self.transfer.to(device)
        if self.gate is not None and isinstance(self.gate.segmenter, NnunetSegmenter):
            self.gate = replace(self.gate, segmenter=self.gate.segmenter.on(device))

    def __call__(self, key: str) -> CaseResult:
        """Stylize a case and write its image into the cache folder.

        Raises:
            OsasisError: when the raw images are missing, unreadable, or change meanwhile, when the transfer returns
                nonsense, and when the image cannot be written.
        """
        start = perf_counter()
        sources = source_states(self.source_files(key))
        decisions: list[Decision] = []
        restyle = restyle_with(
            self.transfer,
            self.strength,
            gate=self.gate,
            decided=decisions.append,
            ignored=self.setup.plans.get_label_manager(self.setup.dataset_json).ignore_label,
            case=f"Case {key}",
        )
        try:
            image = self.cases.preprocessed(key, restyle)
        except OSError as error:
            source_states(self.source_files(key))  # a missing file has a message of its own
            raise OsasisError(
                "The raw images must be readable",
                found=f"{error} for case {key}",
                remedy="Replace the file; finished cases are kept.",
            ) from error
        require_unchanged(key, sources, source_states(self.source_files(key)))
        path = write_case(self.folder / f"{key}.b2nd", image, self.setup)
        return CaseResult(CaseRecord(sources, FileState.of(path)), decisions, perf_counter() - start)

    def source_files(self, key: str) -> list[Path]:
        """The files that the result depends on; with a gate these are the labels, too."""
        return source_files(self.cases, key, labels=self.gate is not None)


def write_case(path: Path, image: np.ndarray, setup: NnunetConfiguration) -> Path:
    """Write ``image`` ``(C, Z, Y, X)`` by nnU-Net's own writer and read it back; the file appears whole or not at all.

    Blocks and chunks are those of the original case, so that reading a patch costs the same.

    Raises:
        OsasisError: when the original has another shape, and when the image cannot be written.
    """
    folder, key = str(setup.data_folder), path.stem
    original = infer_dataset_class(folder)(folder, [key]).load_case(key)[0]
    if tuple(original.shape) != image.shape:
        raise OsasisError(
            f"A stylized case must have its original's shape {tuple(original.shape)}",
            found=f"{image.shape} for {key}",
            remedy=f"The raw image changed: run nnUNetv2_preprocess -d {setup.dataset_id} again.",
        )
    if hasattr(original, "chunks") and hasattr(original, "blocks"):
        blocks, chunks = tuple(original.blocks), tuple(original.chunks)
    else:  # an .npz has none
        blocks, chunks = comp_blosc2_params(image.shape, tuple(setup.manager.patch_size), image.itemsize)
    no_labels = np.zeros((1, 1, 1, 1), np.int8)  # save_case insists on a segmentation; the temporary folder takes it

    def write(temporary: Path) -> None:
        try:
            nnUNetDatasetBlosc2.save_case(
                image,
                no_labels,
                {},
                str(temporary.with_suffix("")),
                chunks=chunks,
                blocks=blocks,
                chunks_seg=no_labels.shape,
                blocks_seg=no_labels.shape,
            )
            written = blosc2.open(urlpath=str(temporary), mode="r")[:]
        except RuntimeError as error:  # blosc2 raises it when the disk is full
            raise OSError(errno.EIO, str(error)) from error
        if not np.array_equal(written, image):
            raise OSError(errno.EIO, "the file reads back differently")

    return atomic_write(path, write)


@dataclass(frozen=True)
class FileState:
    """A file's content (SHA-256) with the size, time stamps and inode it had when it was hashed.

    Attributes:
        size: in bytes.
        mtime_ns: modification time.
        sha256: of the content.
        ctime_ns: change time; 0 where the stamps prove nothing, because the file was too young or dated in the future.
        inode: number of the file in its file system.
    """

    size: int
    mtime_ns: int
    sha256: str
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Hash ``path``. Raises ``FileNotFoundError``."""
        stat = path.stat()
        latest = max(stat.st_mtime_ns, stat.st_ctime_ns)
        ctime = stat.st_ctime_ns if latest + SETTLING_TIME_NS < time.time_ns() else 0
        return cls(stat.st_size, stat.st_mtime_ns, sha256_of_file(path), ctime, stat.st_ino)

    def unchanged(self, path: Path) -> bool:
        """Whether size, both time stamps and inode are the recorded ones, and none lies in the future.

        A write through the file system changes the ctime, which no program can set; a clock that jumped back shows
        as a stamp in the future. A disk that loses a bit by itself is not noticed.
        """
        stat = path.stat()
        present = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        recorded = (self.size, self.mtime_ns, self.ctime_ns, self.inode)
        in_the_past = max(stat.st_mtime_ns, stat.st_ctime_ns) < time.time_ns()
        return self.ctime_ns > 0 and present == recorded and in_the_past

    def verified(self, path: Path, *, trust_stamps: bool) -> FileState | None:
        """The present state of ``path`` if it has the recorded content, else None.

        Args:
            path: the file, which may be missing.
            trust_stamps: do not read a file again that is ``unchanged``.
        """
        try:
            if trust_stamps and self.unchanged(path):
                return self
            if path.stat().st_size != self.size:
                return None
            state = FileState.of(path)
        except FileNotFoundError:
            return None
        return state if state.sha256 == self.sha256 else None


@dataclass(frozen=True)
class CaseRecord:
    """What a stylized case was made from (by file name), and which bytes it is."""

    sources: dict[str, FileState]
    result: FileState

    @classmethod
    def read(cls, path: Path) -> CaseRecord | None:
        """The record at ``path``; None when it is missing or damaged, so that the case is made anew."""
        if not path.is_file():
            return None
        try:
            value = read_sealed_json(path, what="A case's record")
            sources = {name: FileState(**state) for name, state in value["sources"].items()}
            return cls(sources, FileState(**value["result"]))
        except (OsasisError, AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return None

    def write(self, path: Path) -> None:
        """Write atomically, with a checksum."""
        write_sealed_json(path, asdict(self))

    def verified(self, sources: list[Path], result: Path) -> CaseRecord | None:
        """The record with present time stamps if neither sources nor result have changed, else None.

        The result is always hashed: a network is about to be trained on it. Sources are hashed only when their
        stamps differ: a source that rotted after its result was made cannot reach the training, and when the result
        has to be made again, it is compared with nnU-Net's own preprocessed file.
        """
        if set(self.sources) != {source.name for source in sources}:
            return None
        result_state = self.result.verified(result, trust_stamps=False)
        if result_state is None:
            return None
        present: dict[str, FileState] = {}
        for source in sources:
            state = self.sources[source.name].verified(source, trust_stamps=True)
            if state is None:
                return None
            present[source.name] = state
        return CaseRecord(present, result_state)


def source_files(cases: Cases, key: str, *, labels: bool) -> list[Path]:
    """The files that a case is made from; with ``labels``, the file of its labels is one of them."""
    files = cases.source_files(key)
    return [*files, *(path for path in cases.label_files(key) if labels and path not in files)]


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


def append_event(path: Path, event: str, **details: Any) -> None:
    """Append one line to a JSONL log. Raises ``OsasisError`` when it cannot be written."""
    append_jsonl(path, {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, **details})
