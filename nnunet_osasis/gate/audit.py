"""The audit trail: one line of JSON for every image that was stylized, and what all lines say together.

An audit of any length, read line by line: of every case only what its summary and the pictures need.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.gate import Decision
from nnunet_osasis.runtime.provenance import versions
from nnunet_osasis.runtime.records import append_jsonl, iter_jsonl

FOLDER = "osasis_audit"
"""Subfolder of an output folder, so that its pictures are not taken for results."""

FILE = "audit.jsonl"

OUTCOMES = ("full", "weaker", "original")

WORST = 8
"""Cases that summaries and pictures show."""


def write_audit(path: str | Path, case: str, decision: Decision, **facts: Any) -> None:
    """Append what was decided about a case, with facts such as hashes and the stylizer's fingerprint.

    A case that is made again gets another line: the last one counts. Raises ``OsasisError`` when it cannot be written.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    row = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "case": case, **decision.to_json()}
    append_jsonl(path, row | facts | {"versions": versions()})


def find_audit(path: str | Path) -> Path:
    """The audit of a folder made by osasis-stylize, of a cache of stylized cases, or the file itself.

    Raises ``OsasisError`` when there is none.
    """
    path = Path(path).absolute()
    for found in (path, path / FOLDER / FILE, path / FILE, path.parent / f"{path.name}_records" / FILE):
        if found.is_file():
            return found
    raise OsasisError(
        "There must be an audit trail",
        found=f"none in {path}",
        remedy=f"Give an output folder of osasis-stylize, a cache ..._osasis_<key> of stylized cases, or an {FILE}.",
    )


def read_audit(path: str | Path) -> list[dict[str, Any]]:
    """The last line of every case, by name. Raises ``OsasisError`` for lines that are no audit's."""
    rows = {row["case"]: row for row in _rows(path)}
    return [rows[case] for case in sorted(rows)]


def audited_results(path: str | Path) -> dict[str, str]:
    """SHA-256 of every case's result, by the audit: a result that is not on record has to be made again."""
    return {row["case"]: str(row.get("result_sha256")) for row in _rows(path)}


def _rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """All lines, one at a time: audits of large archives are long."""
    for row in iter_jsonl(path):
        well_formed = (
            isinstance(row.get("case"), str)
            and row.get("decision") in OUTCOMES
            and all(isinstance(row.get(name), dict) for name in ("scores", "failures"))
        )
        if not well_formed:
            raise OsasisError(
                "Every line of an audit names a case, a decision, scores and failures",
                found=str(row)[:200],
                remedy="Give the audit.jsonl that a command of this package wrote.",
            )
        yield row


def badness(row: Mapping[str, Any]) -> tuple[int, int, float]:
    """Sorts the worst first: originals kept, then weakened, then by the lowest local score."""
    lowest = min((row["scores"].get(name, 1.0) for name in ("kept", "own", "lesion_edges")), default=1.0)
    return (-OUTCOMES.index(row["decision"]), -len(row["failures"]), lowest)


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by decision, the scores' distribution, what failed most often, and the worst cases."""
    outcomes = Counter(row["decision"] for row in rows)
    used = [row for row in rows if row["decision"] != "original"]
    names = sorted({name for row in used for name in row["scores"]})
    spread = {}
    for name in names:
        found = [row["scores"][name] for row in used if name in row["scores"]]
        spread[name] = {
            label: round(float(value), 4)
            for label, value in zip(("lowest", "5%", "median"), np.quantile(found, [0, 0.05, 0.5]), strict=True)
        }
    worst = sorted(rows, key=badness)[:WORST]
    return {
        "cases": len(rows),
        "decisions": {name: outcomes.get(name, 0) for name in OUTCOMES},
        "failed_scores": dict(Counter(name for row in rows for name in row["failures"])),
        "scores_of_used_images": spread,
        "kept_as_original": [row["case"] for row in rows if row["decision"] == "original"],
        "worst": [
            {key: row[key] for key in ("case", "decision", "strength", "scores", "failures") if key in row}
            for row in worst
        ],
        "stylizers": sorted({str(row["stylizer"]) for row in rows if "stylizer" in row}),
    }


def in_words(rows: list[dict[str, Any]]) -> str:
    """One line for a terminal or a training log."""
    outcomes = Counter(row["decision"] for row in rows)
    return (
        f"structure gate: {outcomes['full']} as wanted, {outcomes['weaker']} weaker, "
        f"{outcomes['original']} kept as they were"
    )


def in_short(row: Mapping[str, Any]) -> str:
    """A case, what was decided, and what it failed at full strength."""
    return f"{row['case']} ({', '.join([row['decision'], *row['failures']])})"


def path_in(folder: str | os.PathLike[str]) -> Path:
    """Where the audit of an output folder is."""
    return Path(folder) / FOLDER / FILE


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
