"""Measurements of every case before a training on the fly: its normalization, and the strength that passed the gate."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import Decision, StructureGate
from nnunet_osasis.gate.audit import FILE, read_audit, write_audit
from nnunet_osasis.nnunet.case_maker import FileState, append_event, require_unchanged, source_files, source_states
from nnunet_osasis.nnunet.cases import open_cases
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.on_the_fly.renormalize import CaseNumbers, ChannelRules
from nnunet_osasis.nnunet.on_the_fly.transfer import OnePassTransfer
from nnunet_osasis.nnunet.restyle import restyle_with
from nnunet_osasis.nnunet.segmenter import NnunetSegmenter
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import read_sealed_json, write_sealed_json
from nnunet_osasis.runtime.storage import remove_stale_temporaries, sha256_of_json, write_error
from nnunet_osasis.runtime.workers import make_cases

FORMAT = 1


@dataclass(frozen=True)
class MeasuredCase:
    """Measurements of one case in one style.

    Attributes:
        sources: states of the files they were taken from, by name.
        numbers: statistics of the case before and after.
        strength: the largest strength that passed the gate.
        decision: what the gate decided, None without a gate or for a case that was read.
    """

    sources: dict[str, FileState]
    numbers: CaseNumbers
    strength: float
    decision: Decision | None = None

    @classmethod
    def read(cls, path: Path, files: Sequence[Path]) -> MeasuredCase | None:
        """Read a case; None when it is missing, damaged, or of other files."""
        if not path.is_file():
            return None
        try:
            value = read_sealed_json(path, what="A case's numbers")
            sources = {name: FileState(**state) for name, state in value["sources"].items()}
            case = cls(sources, CaseNumbers.from_json(value["numbers"]), float(value["strength"]))
        except (OsasisError, AttributeError, KeyError, TypeError, ValueError):
            return None
        same = set(sources) == {file.name for file in files}
        return case if same and all(sources[file.name].verified(file, trust_stamps=True) for file in files) else None

    def write(self, path: Path) -> None:
        """Write atomically, with a checksum."""
        states = {name: asdict(state) for name, state in self.sources.items()}
        write_sealed_json(path, {"sources": states, "numbers": self.numbers.to_json(), "strength": self.strength})


@dataclass
class CaseMeasurer:
    """Measures cases, in this process or in a worker."""

    setup: NnunetConfiguration
    cases: Any
    rules: ChannelRules
    transfer: OnePassTransfer
    strength: float
    gate: StructureGate | None

    def to(self, device: str) -> None:
        """Move stylizer and segmenter to a device."""
        self.transfer.to(device)
        if self.gate is not None and isinstance(self.gate.segmenter, NnunetSegmenter):
            self.gate = replace(self.gate, segmenter=self.gate.segmenter.on(device))

    def files(self, key: str) -> list[Path]:
        """Return the files that the measurements depend on."""
        return source_files(self.cases, key, labels=self.gate is not None)

    def __call__(self, key: str) -> MeasuredCase:
        """Measure one case. Raises ``OsasisError`` as :class:`nnunet_osasis.nnunet.case_maker.StylizedCaseMaker`."""
        sources = source_states(self.files(key))
        data, seg = self.cases.native(key)
        manager = self.setup.manager
        after = restyle_with(self.transfer, 1.0, case=f"Case {key}")(data.copy(), seg, manager)
        strength = 0.0 if np.array_equal(after, data) else self.strength  # a constant case was kept, with a warning
        bounds = self.transfer.stylizer.config.intensity.bounds(data) if strength else (0.0, 1.0)
        numbers = CaseNumbers.measure(self.rules, bounds, data, after, np.asarray(seg[0] >= 0))
        decisions: list[Decision] = []
        if self.gate is not None:
            ignored = self.setup.plans.get_label_manager(self.setup.dataset_json).ignore_label
            judged = restyle_with(
                self.transfer, self.strength, gate=self.gate, decided=decisions.append, ignored=ignored
            )
            judged(data.copy(), seg, manager)
        require_unchanged(key, sources, source_states(self.files(key)))
        strength = decisions[0].strength if decisions else strength
        return MeasuredCase(sources, numbers, strength, decisions[0] if decisions else None)


class Measurements:
    """The folder ``<data_identifier>_osasis_<key>_on_the_fly/``: one small file per case, an audit, a log, a lock.

    The key is a hash of stylizer, strength, gate and preprocessing.

    Args:
        setup: nnU-Net's configuration.
        transfer: the stylizer.
        strength: the largest that is asked for, in [0, 1].
        gate: lowers it per case; None measures without.
        device: of the stylizer while it measures.
        processes: how many measure at once, None for a number that fits.
    """

    def __init__(
        self,
        setup: NnunetConfiguration,
        transfer: OnePassTransfer,
        strength: float,
        gate: StructureGate | None,
        *,
        device: str = "cpu",
        processes: int | None = None,
    ) -> None:
        self.rules, cases = ChannelRules.of(setup), open_cases(setup)
        setup.require_channels(transfer.in_channels)
        self._maker = CaseMeasurer(setup, cases, self.rules, transfer, strength, gate)
        self._device, self._processes = device, processes
        self._identity = {
            "format": FORMAT,
            "transfer": transfer.fingerprint,
            "strength": strength,
            "route": cases.route,
            "preprocessing": setup.preprocessing(),
            "gate": None if gate is None else gate.identity(),
        }
        name = f"{setup.manager.data_identifier}_osasis_{sha256_of_json(self._identity)[:12]}_on_the_fly"
        self.folder = setup.preprocessed_folder / name

    @property
    def audit(self) -> Path:
        """The audit trail of the gate."""
        return self.folder / FILE

    def build(self, keys: Sequence[str]) -> tuple[dict[str, MeasuredCase], list[str]]:
        """Measure the cases in ``keys`` that are not known yet.

        One process works, the others (ranks, folds) wait for its lock; a measured case is kept whatever happens.
        A complete folder can be read-only.

        Returns:
            all cases by key, and the keys that were measured now.
        """
        keys = sorted(keys)
        measured = self._known(keys)
        if len(measured) == len(keys):
            return measured, []
        with output_lock(self.folder, "measuring cases for on_the_fly", wait=True, name="lock"):
            remove_stale_temporaries(self._path("").parent)
            measured = self._known(keys)
            missing = [key for key in keys if key not in measured]
            if not missing:
                return measured, []
            if not os.access(self.folder, os.W_OK):
                raise write_error(self.folder, PermissionError(13, "Permission denied"))
            self._maker.cases.require_same_as_preprocessed(missing[0])
            write_sealed_json(self.folder / "measurements.json", self._identity)
            append_event(self.folder / "log.jsonl", "measure", requested=len(keys), reused=len(measured))
            with tqdm(total=len(missing), desc=f"Measuring training cases ({len(measured)} there)", unit="case") as bar:

                def put(key: str, case: MeasuredCase) -> None:
                    if case.decision is not None:
                        hashes = {name: state.sha256 for name, state in case.sources.items()}
                        write_audit(
                            self.audit, key, case.decision, sources=hashes, stylizer=self._maker.transfer.fingerprint
                        )
                    case.write(self._path(key))
                    measured[key] = case
                    bar.update()

                make_cases(self._maker, missing, put, device=self._device, processes=self._processes)
        return measured, missing

    def _known(self, keys: Sequence[str]) -> dict[str, MeasuredCase]:
        # What the gate let pass without a line in its audit is measured again.
        known = keys if self._maker.gate is None else {row["case"] for row in read_audit(self.audit)} & set(keys)
        read = {key: MeasuredCase.read(self._path(key), self._maker.files(key)) for key in known}
        return {key: case for key in keys if (case := read.get(key)) is not None}

    def _path(self, key: str) -> Path:
        return self.folder / "cases" / f"{key}.json"
