"""Stylized copies of a fold's training cases, made once, before training starts."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import Decision, StructureGate
from nnunet_osasis.gate.audit import FILE, audited_results, write_audit
from nnunet_osasis.gate.pictures import PICTURE
from nnunet_osasis.leftovers import clear_leftovers
from nnunet_osasis.locks import output_lock
from nnunet_osasis.nnunet.audit_picture import save_worst_cases
from nnunet_osasis.nnunet.case_file import layout_of, write_case
from nnunet_osasis.nnunet.cases import open_cases
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.manifest import CaseRecord, FileState, append_event
from nnunet_osasis.nnunet.restyle import restyle_with
from nnunet_osasis.storage import sha256_of_json, sync_folder, write_sealed_json
from nnunet_osasis.transfer import StyleTransfer

logger = logging.getLogger(__name__)
FORMAT = 1
_ROOM_TO_SPARE = 1.5  # stylized images compress a little worse than their sources


class StylizedCache:
    """The folder of stylized images that belongs to one transfer, one strength and one way of preprocessing.

    ``<data_identifier>_osasis_<key>/`` holds one ``<case>.b2nd`` per stylized case, the image alone: segmentation
    and properties are those of the original. Records, log and lock lie in ``..._records/`` beside it, because
    nnU-Net tells a folder's format by its file endings. Folds share the folder; each fills in its own cases.
    """

    def __init__(
        self,
        setup: NnunetConfiguration,
        transfer: StyleTransfer,
        strength: float | None,
        gate: StructureGate | None = None,
    ) -> None:
        channels = len(setup.manager.normalization_schemes)
        if transfer.in_channels != channels:
            raise OsasisError(
                f"The stylizer must take the {channels} channel(s) of {setup.dataset}",
                found=f"one for {transfer.in_channels} channel(s)",
                remedy="Make a stylizer from this dataset's images.",
            )
        self._setup, self._transfer, self._strength, self._gate = setup, transfer, strength, gate
        self._cases = open_cases(setup)
        self._audited: dict[str, str] = {}
        self._identity = {
            "format": FORMAT,
            "transfer": transfer.fingerprint,
            "strength": strength,
            "route": self._cases.route,
            "preprocessing": setup.preprocessing(),
        }
        if gate is not None:
            self._identity["gate"] = gate.identity()
        name = f"{setup.manager.data_identifier}_osasis_{sha256_of_json(self._identity)[:12]}"
        self.folder = setup.preprocessed_folder / name
        self.records = setup.preprocessed_folder / f"{name}_records"

    @property
    def audit(self) -> Path:
        """The audit trail of the gate."""
        return self.records / FILE

    def image_path(self, key: str) -> Path:
        """Where the stylized image of a case is."""
        return self.folder / f"{key}.b2nd"

    def build(self, keys: Sequence[str]) -> list[str]:
        """Stylize the cases in ``keys`` that are not there, whole and up to date; return those it made.

        Every result is read and compared with its hash: a cache that lost a bit is repaired before it is trained on.
        Several processes may call this at once (the ranks of a DDP run, several folds): one works, the others
        wait for its lock, which ends with its process. A cache in a read-only folder serves when it is complete.
        Raises ``OsasisError`` when the disk is full, when preprocessed data do not belong to the raw images, when
        raw images disappear or change meanwhile, and when a transfer misbehaves; finished cases are kept.
        """
        keys = sorted(keys)
        self._audited = audited_results(self.audit)
        if self._is_read_only() and all(self._verified(key) for key in keys):
            return []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.records / "cases").mkdir(parents=True, exist_ok=True)
            with output_lock(self.records, "a cache of stylized cases", wait=True, name="lock"):
                return self._build(keys)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _build(self, keys: list[str]) -> list[str]:
        shutil.rmtree(self._workbench, ignore_errors=True)  # left by a process that was killed
        clear_leftovers(self.records / "cases")
        self._audited = audited_results(self.audit)  # another process may have been at work until now
        missing = [key for key in keys if not self._is_whole(key)]
        log = self.records / "log.jsonl"
        append_event(log, "build", requested=len(keys), reused=len(keys) - len(missing), **self._identity_brief())
        if not missing:
            self._show_worst(again=False)
            return []
        self._require_room(missing)
        self._source_states(missing[0])  # says so when they are gone
        self._cases.require_same_as_preprocessed(missing[0])
        write_sealed_json(self.records / "cache.json", self._identity)
        for key in tqdm(missing, desc=f"Stylizing training cases ({len(keys) - len(missing)} there)", unit="case"):
            start = perf_counter()
            record = self._make(key)
            append_event(
                log,
                "stylized",
                case=key,
                sources={name: state.sha256 for name, state in record.sources.items()},
                result=record.result.sha256,
                seconds=round(perf_counter() - start, 3),
            )
        self._show_worst(again=True)
        return missing

    def _show_worst(self, *, again: bool) -> None:
        """The picture for people; a training does not fail for it."""
        picture = self.records / PICTURE
        if self._gate is None or (picture.is_file() and not again):
            return
        try:
            save_worst_cases(picture, self.audit, self._cases, self._transfer, self._gate.intensity)
        except (OsasisError, OSError) as error:
            logger.warning("The picture of the worst cases could not be made: %s", error)

    def _is_read_only(self) -> bool:
        return self.records.is_dir() and not os.access(self.records, os.W_OK)

    def _verified(self, key: str) -> CaseRecord | None:
        record = CaseRecord.read(self._record_path(key))
        if record is None or (self._gate is not None and self._audited.get(key) != record.result.sha256):
            return None
        return record.verified(self._source_files(key), self.image_path(key))

    def _is_whole(self, key: str) -> bool:
        path = self._record_path(key)
        known, found = CaseRecord.read(path), self._verified(key)
        if found is None:
            if path.is_file() or self.image_path(key).is_file():
                logger.warning("The stylized case %s is damaged, unfinished or of changed sources: made anew.", key)
            return False
        if found != known:  # other time stamps, or a record of an earlier version
            found.write(path)
        return True

    def _make(self, key: str) -> CaseRecord:
        sources = self._source_states(key)
        decisions: list[Decision] = []
        restyle = restyle_with(
            self._transfer, self._strength, gate=self._gate, decided=decisions.append,
            ignored=self._setup.plans.get_label_manager(self._setup.dataset_json).ignore_label,
        )  # fmt: skip
        try:
            image = self._cases.preprocessed(key, restyle)
        except OSError as error:
            self._source_states(key)  # says so when they are gone
            raise OsasisError(
                "The raw images must be readable",
                found=f"{error} for case {key}",
                remedy="Replace the file; finished cases are kept.",
            ) from error
        hashes = {name: state.sha256 for name, state in sources.items()}
        if {name: state.sha256 for name, state in self._source_states(key).items()} != hashes:
            raise OsasisError(
                "The raw images must not change while they are stylized",
                found=f"another content of {key}'s files than before",
                remedy="Start again when they are complete; finished cases are kept.",
            )
        record = CaseRecord(sources, self._save(key, image))
        for decision in decisions:
            write_audit(
                self.audit, key, decision, sources=hashes, result_sha256=record.result.sha256,
                stylizer=self._transfer.fingerprint,
            )  # fmt: skip
        record.write(self._record_path(key))
        return record

    def _source_files(self, key: str) -> list[Path]:
        """What the result depends on; the gate also looks at the labels."""
        files = self._cases.source_files(key)
        labels = [] if self._gate is None else self._cases.label_files(key)
        return files + [path for path in labels if path not in files]

    def _source_states(self, key: str) -> dict[str, FileState]:
        try:
            return {path.name: FileState.of(path) for path in self._source_files(key)}
        except FileNotFoundError as error:
            raise OsasisError(
                "Every training case must have its images in nnUNet_raw",
                found=f"no file {error.filename}",
                remedy="Put it back, or take the case out of splits_final.json; finished cases are kept.",
            ) from error

    def _save(self, key: str, image: np.ndarray) -> FileState:
        """Write ``image`` ``(C, Z, Y, X)`` on the workbench and move it into place when it is whole."""
        layout = layout_of(self._setup, key, image)
        self._workbench.mkdir(exist_ok=True)
        try:
            written = write_case(self._workbench, key, image, layout)
            state = FileState.of(written)
            os.replace(written, self.image_path(key))
            sync_folder(self.folder)
        except RuntimeError as error:  # blosc2's way to say that it could not write
            raise self._cannot_write(error) from error
        finally:
            shutil.rmtree(self._workbench, ignore_errors=True)
        return state

    def _require_room(self, missing: list[str]) -> None:
        originals = self._setup.preprocessed_folder / self._setup.manager.data_identifier
        sizes = [(originals / f"{key}.b2nd").stat().st_size for key in missing if (originals / f"{key}.b2nd").is_file()]
        needed, free = int(sum(sizes) * _ROOM_TO_SPARE), shutil.disk_usage(self.folder).free
        if needed > free:
            raise OsasisError(
                f"Stylizing {len(missing)} cases needs about {needed / 1e6:,.1f} MB on the disk of nnUNet_preprocessed",
                found=f"{free / 1e6:,.1f} MB free at {self.folder}",
                remedy="Free some space and start again; what was finished before is kept.",
            )

    def _cannot_write(self, error: Exception) -> OsasisError:
        return OsasisError(
            "The cache of stylized cases must be writable",
            found=f"{error} at {self.folder}",
            remedy="Free some disk space or change the folder's permissions and start again; finished cases are kept.",
        )

    def _identity_brief(self) -> dict[str, object]:
        return {key: self._identity[key] for key in ("transfer", "strength", "route")}

    def _record_path(self, key: str) -> Path:
        return self.records / "cases" / f"{key}.json"

    @property
    def _workbench(self) -> Path:
        return self.records / "unfinished"
