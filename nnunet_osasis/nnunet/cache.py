"""Stylized copies of a fold's training cases, made once, before training starts.

The picture of the worst cases of a cache, beside its audit trail.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import StructureGate
from nnunet_osasis.gate.audit import FILE, WORST, audited_results, badness, in_short, read_audit, write_audit
from nnunet_osasis.gate.pictures import PICTURE, as_picture, save_worst
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.nnunet.case_maker import CaseRecord, Made, StylizedCaseMaker, append_event, cannot_write
from nnunet_osasis.nnunet.cases import open_cases
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import write_sealed_json
from nnunet_osasis.runtime.storage import remove_stale_temporaries, sha256_of_json
from nnunet_osasis.runtime.workers import make_cases, usual_processes
from nnunet_osasis.transfer import StyleTransfer

logger = logging.getLogger(__name__)

FORMAT = 1

_ROOM_TO_SPARE = 1.5  # stylized images compress a little worse than their sources


class StylizedCache:
    """The folder of stylized images that belongs to one transfer, one strength and one way of preprocessing.

    ``<data_identifier>_osasis_<key>/`` holds one ``<case>.b2nd`` per stylized case, the image alone: segmentation
    and properties are those of the original. Records, log and lock lie in ``..._records/`` beside it, because
    nnU-Net tells a folder's format by its file endings. Folds share the folder; each fills in its own cases.

    ``device`` is the transfer's own; ``processes`` is how many make cases side by side, see
    :func:`nnunet_osasis.runtime.workers.make_cases`. The pixels do not depend on it where weights are ``aligned``.
    """

    def __init__(
        self,
        setup: NnunetConfiguration,
        transfer: StyleTransfer,
        strength: float | None,
        gate: StructureGate | None = None,
        *,
        device: str = "cpu",
        processes: int | None = None,
    ) -> None:
        channels = len(setup.manager.normalization_schemes)
        if transfer.in_channels != channels:
            raise OsasisError(
                f"The stylizer must take the {channels} channel(s) of {setup.dataset}",
                found=f"one for {transfer.in_channels} channel(s)",
                remedy="Make a stylizer from this dataset's images.",
            )
        self._setup, self._transfer, self._gate = setup, transfer, gate
        self._cases, self._device, self._processes = open_cases(setup), device, processes
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
        self._maker = StylizedCaseMaker(
            setup, self._cases, transfer, strength, gate, self.folder, self.records / "unfinished"
        )

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
            raise cannot_write(self.folder, error) from error

    def _build(self, keys: list[str]) -> list[str]:
        shutil.rmtree(self._maker.workbench, ignore_errors=True)  # left by a process that was killed
        remove_stale_temporaries(self.records / "cases")
        self._audited = audited_results(self.audit)  # another process may have been at work until now
        missing = [key for key in keys if not self._is_whole(key)]
        there = len(keys) - len(missing)
        brief = {key: self._identity[key] for key in ("transfer", "strength", "route")}
        work = {} if not missing else {"processes": self._most_processes, "megabytes": self._require_room(missing)}
        append_event(self._log, "build", requested=len(keys), reused=there, **brief, **work)
        if not missing:
            self._show_worst(again=False)
            return []
        self._maker.source_states(missing[0])  # says so when they are gone
        self._cases.require_same_as_preprocessed(missing[0])
        write_sealed_json(self.records / "cache.json", self._identity)
        describe = f"Stylizing training cases ({there} there, about {work['megabytes']:.1f} MB to come)"
        try:
            with tqdm(total=len(missing), desc=describe, unit="case") as bar:
                make_cases(
                    self._maker, missing, lambda key, made: self._put_on_record(key, made, bar),
                    device=self._device, processes=self._processes,
                )  # fmt: skip
        finally:
            shutil.rmtree(self._maker.workbench, ignore_errors=True)
        self._show_worst(again=True)
        return missing

    def _put_on_record(self, key: str, made: Made, bar: tqdm) -> None:
        """Only this process writes audit, record and log; the record comes last but for the log."""
        hashes = {name: state.sha256 for name, state in made.record.sources.items()}
        result = made.record.result.sha256
        for decision in made.decisions:
            write_audit(
                self.audit, key, decision, sources=hashes, result_sha256=result, stylizer=self._transfer.fingerprint
            )
        made.record.write(self._record_path(key))
        append_event(self._log, "stylized", case=key, sources=hashes, result=result, seconds=round(made.seconds, 3))
        bar.update()

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
        return record.verified(self._maker.source_files(key), self.image_path(key))

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

    def _require_room(self, missing: list[str]) -> float:
        """Megabytes that the missing cases will take. Raises ``OsasisError`` when the disk has fewer."""
        originals = self._setup.preprocessed_folder / self._setup.manager.data_identifier
        files = [originals / f"{key}.b2nd" for key in missing]
        needed = sum(path.stat().st_size for path in files if path.is_file()) * _ROOM_TO_SPARE
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OsasisError(
                f"Stylizing {len(missing)} cases needs about {needed / 1e6:,.1f} MB on the disk of nnUNet_preprocessed",
                found=f"{free / 1e6:,.1f} MB free at {self.folder}",
                remedy="Free some space and start again; what was finished before is kept.",
            )
        return round(needed / 1e6, 3)

    @property
    def _most_processes(self) -> int:
        return usual_processes(self._device) if self._processes is None else self._processes

    def _record_path(self, key: str) -> Path:
        return self.records / "cases" / f"{key}.json"

    @property
    def _log(self) -> Path:
        return self.records / "log.jsonl"


def save_worst_cases(path: Path, audit: Path, cases: Any, transfer: StyleTransfer, intensity: IntensityRange) -> None:
    """Show the worst cases of an audit, restyled again: what was refused is stored nowhere else.

    Args:
        cases: as :func:`nnunet_osasis.nnunet.cases.open_cases` gives them; cases that are gone are left out.
    """
    rows = [row for row in read_audit(audit) if row["case"] in cases.keys]
    shown = []
    for row in sorted(rows, key=badness)[:WORST]:
        source = cases.unnormalized(row["case"])
        full = transfer.stylize_array(source, strength=row["wanted_strength"])
        used = full if row["decision"] == "full" else transfer.stylize_array(source, strength=row["strength"])
        before, at_full, at_last = as_picture(source, full, used)
        shown.append((in_short(row), before, at_full, at_last))
    if shown:
        save_worst(path, shown, intensity)
