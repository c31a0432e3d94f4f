"""An audit of any length, read line by line: of every case only what its summary and the pictures need."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_osasis.gate.audit import OUTCOMES, badness
from nnunet_osasis.runtime.records import iter_jsonl


class Brief(NamedTuple):
    """The last line of a case, in about 200 bytes; ``badness`` first, so that the worst sorts first."""

    badness: tuple[int, int, float]
    decision: str
    failures: tuple[str, ...]

    def row(self, case: str) -> dict[str, Any]:
        """As much of an audit's row as says what was decided."""
        return {"case": case, "decision": self.decision, "failures": self.failures}


def brief_audit(paths: Iterable[Path]) -> dict[str, Brief]:
    """What was decided last about each case of some audits. Lines that are no audit's say nothing about any case."""
    found: dict[str, Brief] = {}
    for path in paths:
        for row in iter_jsonl(path):
            scores, failures, decision = row.get("scores"), row.get("failures"), row.get("decision")
            if decision not in OUTCOMES or not (isinstance(scores, dict) and isinstance(failures, dict)):
                continue
            names = tuple(sys.intern(name) for name in failures)
            found[str(row.get("case"))] = Brief(badness(row), sys.intern(str(decision)), names)
    return found
