"""One stylized case: read, restyled, judged, normalized, and put in its place in the cache."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import Decision, StructureGate
from nnunet_osasis.nnunet.case_file import layout_of, write_case
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.manifest import CaseRecord, FileState
from nnunet_osasis.nnunet.restyle import restyle_with
from nnunet_osasis.nnunet.segmenter import NnunetSegmenter
from nnunet_osasis.runtime.storage import sync_folder
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
