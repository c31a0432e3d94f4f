"""The audit trail: one line of JSON for every image that was restyled, read line by line whatever its length."""

from __future__ import annotations

import math
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
from nnunet_osasis.gate.thresholds import renamed
from nnunet_osasis.runtime.provenance import versions
from nnunet_osasis.runtime.records import append_jsonl, iter_jsonl

FOLDER = "osasis_audit"
"""Subfolder of an output folder, so that its pictures are not taken for results."""

FILE = "audit.jsonl"
"""Name of the file in that folder, and in a cache's records."""

OUTCOMES = ("full", "weaker", "original")
"""What can be decided about a case, the best first."""

WORST = 8
"""Number of cases that summaries and pictures show."""


def write_audit(path: str | Path, case: str, decision: Decision, **facts: Any) -> None:
    """Append a decision. A case that is made again gets another line: the last one counts.

    Args:
        path: the audit file; its folder is made.
        case: name of the case.
        decision: what was decided.
        facts: more to record, such as hashes and the stylizer's fingerprint.

    Raises:
        OsasisError: the file cannot be written.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    row = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "case": case, **decision.to_json()}
    append_jsonl(path, row | facts | {"versions": versions()})


def find_audit(path: str | Path) -> Path:
    """The audit of a folder made by osasis-stylize, of a cache of stylized cases, or the file itself.

    Raises ``OsasisError`` when there is none.
    """
    path = Path(path).absolute()
    for audit in (path, path / FOLDER / FILE, path / FILE, path.parent / f"{path.name}_records" / FILE):
        if audit.is_file():
            return audit
    raise OsasisError(
        "There must be an audit trail",
        found=f"none in {path}",
        remedy=f"Give an output folder of osasis-stylize, a cache ..._osasis_<key> of stylized cases, or an {FILE}.",
    )


def read_audit(path: str | Path) -> list[dict[str, Any]]:
    """The last line of every case, by name. Raises ``OsasisError`` for lines that belong to no audit."""
    rows = {row["case"]: row for row in _rows(path)}
    return [rows[case] for case in sorted(rows)]


def audited_results(path: str | Path) -> dict[str, str]:
    """SHA-256 of every case's result, by the audit: a result that is not on record has to be made again."""
    return {row["case"]: str(row.get("result_sha256")) for row in _rows(path, strict=False)}


def _rows(path: str | Path, *, strict: bool = True) -> Iterator[dict[str, Any]]:
    """All lines of an audit, one at a time; others are left out and named. ``strict`` refuses a file without any."""
    count = 0
    for row in iter_jsonl(path, accepts=_is_decision):
        count += 1
        yield row | {"scores": renamed(row["scores"]), "failures": renamed(row["failures"])}
    if strict and not count and os.path.isfile(path) and os.path.getsize(path):
        raise OsasisError(
            "Every line of an audit names a case, a decision, scores and failures",
            found=f"no such line in {path}",
            remedy="Give the audit.jsonl that a command of this package wrote.",
        )


def _is_decision(row: dict[str, Any]) -> bool:
    """Whether a line is one of an audit: every value that is computed with is a number in its range."""
    scores, failures = row.get("scores"), row.get("failures")
    if not (isinstance(row.get("case"), str) and row.get("decision") in OUTCOMES):
        return False
    if not (isinstance(scores, dict) and isinstance(failures, dict)):
        return False
    amounts = [row[name] for name in ("strength", "wanted_strength") if name in row]
    numbers = [*scores.values(), *failures.values(), *amounts]
    if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
        return False
    return all(0 <= amount <= 1 for amount in amounts) and (row["decision"] != "weaker" or 0 not in amounts)


def badness(row: Mapping[str, Any]) -> tuple[int, int, float]:
    """Sorts the worst first: originals kept, then weakened, then by the lowest local score."""
    names = ("structure_kept", "structure_not_invented", "lesion_edges")
    lowest = min(row["scores"].get(name, 1.0) for name in names)
    return (-OUTCOMES.index(row["decision"]), -len(row["failures"]), lowest)


class AuditSummary(NamedTuple):
    """What was decided last about a case, in about 200 bytes.

    Attributes:
        badness: comes first, so that the worst case sorts first.
        decision: one of ``OUTCOMES``.
        failures: names of the scores that failed at the requested strength.
    """

    badness: tuple[int, int, float]
    decision: str
    failures: tuple[str, ...]

    def row(self, case: str) -> dict[str, Any]:
        """The part of the audit's line that holds the decision."""
        return {"case": case, "decision": self.decision, "failures": self.failures}


def summarize_cases(paths: Iterable[Path]) -> dict[str, AuditSummary]:
    """The last decision about each case of some audits; lines that belong to no audit are left out."""
    summaries: dict[str, AuditSummary] = {}
    for path in paths:
        for row in _rows(path, strict=False):
            names = tuple(sys.intern(name) for name in row["failures"])
            summaries[row["case"]] = AuditSummary(badness(row), sys.intern(row["decision"]), names)
    return summaries


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts by decision, the scores' distribution, what failed most often, and the worst cases."""
    outcomes = Counter(row["decision"] for row in rows)
    used = [row for row in rows if row["decision"] != "original"]
    spread = {}
    for name in sorted({name for row in used for name in row["scores"]}):
        scores = [row["scores"][name] for row in used if name in row["scores"]]
        lowest, low, median = (round(float(value), 4) for value in np.quantile(scores, [0, 0.05, 0.5]))
        spread[name] = {"lowest": lowest, "5%": low, "median": median}
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
