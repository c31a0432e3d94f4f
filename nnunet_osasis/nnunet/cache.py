"""Stylized copies of a fold's training cases, made once, before training starts."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import StructureGate
from nnunet_osasis.gate.audit import FILE, WORST, audited_results, badness, in_short, read_audit, write_audit
from nnunet_osasis.gate.pictures import PICTURE, as_picture, save_worst
from nnunet_osasis.nnunet.caches import LOCK, USERS, records_of
from nnunet_osasis.nnunet.case_maker import CaseRecord, CaseResult, StylizedCaseMaker, append_event, source_states
from nnunet_osasis.nnunet.cases import open_cases
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import write_sealed_json
from nnunet_osasis.runtime.storage import locked, remove_stale_temporaries, sha256_of_json, write_error
from nnunet_osasis.runtime.workers import make_cases, usual_processes
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.transfer import StyleTransfer

logger = logging.getLogger(__name__)

_held = ExitStack()
"""Shared locks on the caches that this process trains on, to its end: they keep ``osasis-info --prune`` away."""

FORMAT = 1
"""Version of the cache's files; it is part of the folder's name, so that a new format starts a new folder."""

SIZE_MARGIN = 1.5
"""Factor on the originals' size when disk space is estimated: stylized images compress a little worse."""


class StylizedCache:
    """The folder of stylized images that belongs to one transfer, one strength, one gate and one way of preprocessing.

    ``<data_identifier>_osasis_<key>/`` holds one ``<case>.b2nd`` per stylized case, the image alone: segmentation
    and properties are those of the original. Records, log and lock lie in ``..._records/`` beside it, because
    nnU-Net tells a folder's format by its file endings. Folds share the folder; each fills in its own cases.

    Args:
        setup: the nnU-Net configuration.
        transfer: the style transfer.
        strength: how far to stylize, in [0, 1]; None takes the default of the transfer.
        gate: compares the results with the originals; None accepts everything.
        device: where the transfer computes.
        processes: number of processes that make cases side by side; None starts nnU-Net's usual number where it is
            worth it. The pixels do not depend on it.

    Raises:
        OsasisError: when the transfer takes another number of channels.
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
        setup.require_channels(transfer.in_channels)
        self._setup, self._transfer, self._gate = setup, transfer, gate
        self._cases = open_cases(setup)
        self._device, self._processes = device, processes
        own = transfer.config.strength if isinstance(transfer, OSASISStylizer) else 1.0
        self._identity = {
            "format": FORMAT,
            "transfer": transfer.fingerprint,
            "strength": None if strength == own else strength,  # one cache, however its strength is said
            "route": self._cases.route,
            "preprocessing": setup.preprocessing(),
        }
        if gate is not None:
            self._identity["gate"] = gate.identity()
        name = f"{setup.manager.data_identifier}_osasis_{sha256_of_json(self._identity)[:12]}"
        self.folder = setup.preprocessed_folder / name
        self.records = records_of(self.folder)
        self.audit = self.records / FILE  # of the gate
        self._log = self.records / "log.jsonl"
        self._audited: dict[str, str] = {}
        self._maker = StylizedCaseMaker(setup, self._cases, transfer, strength, gate, self.folder)

    def image_path(self, key: str) -> Path:
        """Where the stylized image of a case is."""
        return self.folder / f"{key}.b2nd"

    def build(self, keys: Sequence[str]) -> list[str]:
        """Stylize the cases in ``keys`` that are missing, damaged or outdated, and return those.

        Every result is read and compared with its hash: a cache that lost a bit is repaired before it is trained on.
        Several processes may call this at once (the ranks of a DDP run, several folds): one works, the others
        wait for its lock, which ends with its process. A complete cache in a read-only folder is used as it is.

        Raises:
            OsasisError: when the disk is full, when preprocessed data do not belong to the raw images, when raw
                images disappear or change meanwhile, and when the transfer returns nonsense. Finished cases are kept.
        """
        keys = sorted(keys)
        made = self._made(keys)
        with suppress(OSError):  # a cache that cannot be written cannot be deleted either
            _held.enter_context(locked(self.records / USERS))
        return made

    def _made(self, keys: list[str]) -> list[str]:
        if self.records.is_dir() and not os.access(self.records, os.W_OK):
            self._audited = audited_results(self.audit)
            if all(self._verified(key) for key in keys):
                return []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.records / "cases").mkdir(parents=True, exist_ok=True)
            with output_lock(self.records, "a cache of stylized cases", wait=True, name=LOCK):
                return self._build(keys)
        except OSError as error:
            raise write_error(self.folder, error) from error

    def _build(self, keys: list[str]) -> list[str]:
        remove_stale_temporaries(self.folder)
        remove_stale_temporaries(self.records / "cases")
        self._audited = audited_results(self.audit)  # another process may have been at work until now
        missing = [key for key in keys if not self._is_whole(key)]
        there = len(keys) - len(missing)
        event: dict[str, Any] = {"requested": len(keys), "reused": there}
        event |= {name: self._identity[name] for name in ("transfer", "strength", "route")}
        if not missing:
            append_event(self._log, "build", **event)
            self._save_worst_picture(again=False)
            return []
        megabytes = self._require_room(missing)
        processes = usual_processes(self._device) if self._processes is None else self._processes
        append_event(self._log, "build", **event, processes=processes, megabytes=megabytes)
        source_states(self._maker.source_files(missing[0]))  # a missing file has a message of its own
        self._cases.require_same_as_preprocessed(missing[0])
        write_sealed_json(self.records / "cache.json", self._identity)
        title = f"Stylizing training cases ({there} there, about {megabytes:.1f} MB to come)"
        try:
            with tqdm(total=len(missing), desc=title, unit="case") as bar:
                make_cases(
                    self._maker, missing, lambda key, result: self._put_on_record(key, result, bar),
                    device=self._device, processes=self._processes,
                )  # fmt: skip
        finally:
            remove_stale_temporaries(self.folder)  # of workers that were stopped
        self._save_worst_picture(again=True)
        return missing

    def _put_on_record(self, key: str, result: CaseResult, bar: tqdm) -> None:
        """Write audit, record and log, in this process only; a case counts as made once its record is there."""
        hashes = {name: state.sha256 for name, state in result.record.sources.items()}
        sha256 = result.record.result.sha256
        for decision in result.decisions:
            write_audit(
                self.audit, key, decision, sources=hashes, result_sha256=sha256, stylizer=self._transfer.fingerprint
            )
        result.record.write(self._record_path(key))
        append_event(self._log, "stylized", case=key, sources=hashes, result=sha256, seconds=round(result.seconds, 3))
        bar.update()

    def _verified(self, key: str) -> CaseRecord | None:
        record = CaseRecord.read(self._record_path(key))
        if record is None or (self._gate is not None and self._audited.get(key) != record.result.sha256):
            return None
        return record.verified(self._maker.source_files(key), self.image_path(key))

    def _is_whole(self, key: str) -> bool:
        path = self._record_path(key)
        verified = self._verified(key)
        if verified is None:
            if path.is_file() or self.image_path(key).is_file():
                logger.warning("The stylized case %s is damaged, unfinished or of changed sources: made anew.", key)
            return False
        if verified != CaseRecord.read(path):  # other time stamps
            verified.write(path)
        return True

    def _require_room(self, missing: list[str]) -> float:
        """Estimated size of the missing cases in megabytes. Raises ``OsasisError`` when the disk has less room."""
        originals = self._setup.data_folder
        files = [originals / f"{key}.b2nd" for key in missing]
        needed = sum(path.stat().st_size for path in files if path.is_file()) * SIZE_MARGIN
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OsasisError(
                f"Stylizing {len(missing)} cases needs about {needed / 1e6:,.1f} MB on the disk of nnUNet_preprocessed",
                found=f"{free / 1e6:,.1f} MB free at {self.folder}",
                remedy="Free some space and start again; what was finished before is kept.",
            )
        return round(needed / 1e6, 3)

    def _record_path(self, key: str) -> Path:
        return self.records / "cases" / f"{key}.json"

    def _save_worst_picture(self, *, again: bool) -> None:
        """Show the worst cases of the audit, restyled once more: refused images are stored nowhere else.

        A failure is logged and does not stop the training: the picture is for people.
        """
        picture = self.records / PICTURE
        if self._gate is None or (picture.is_file() and not again):
            return
        try:
            rows = [row for row in read_audit(self.audit) if row["case"] in self._cases.keys]
            images = [(in_short(row), *self._before_and_after(row)) for row in sorted(rows, key=badness)[:WORST]]
            if images:
                save_worst(picture, images, self._gate.intensity)
        except (OsasisError, OSError) as error:
            logger.warning("The picture of the worst cases could not be made: %s", error)

    def _before_and_after(self, row: dict[str, Any]) -> tuple[Any, Any, Any]:
        """The source, at full strength, and as it was used, each ``(C, H, W)``."""
        source = self._cases.seen(row["case"])
        full = self._transfer.stylize_array(source, strength=row["wanted_strength"])
        share = 1.0 if row["decision"] == "full" else row["strength"] / row["wanted_strength"]
        before, at_full, at_last = as_picture(source, full, source + share * (full - source))
        return before, at_full, at_last
