"""How many bad or odd inputs the hostile suite tries, by area, and how they end.

    python benchmarks/hostile/count.py

runs ``tests/hostile`` and writes ``benchmarks/hostile/results.json``. An input counts once; it ends in a result that
was checked, or in one message. Any other end is a failed test, and is counted as such.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ENDS = ("result", "refused")


class Recorder:
    """A pytest plugin: collects what the tests record about their inputs."""

    def __init__(self) -> None:
        self.ends: Counter[tuple[str, str]] = Counter()
        self.failed: list[str] = []
        self.passed = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one test's input once it has run."""
        if report.failed:
            self.failed.append(report.nodeid)
        if report.when == "call" and report.passed:
            self.passed += 1
            for name, value in report.user_properties:
                if name == "hostile":
                    area, _, end = str(value).rpartition(":")
                    self.ends[area, end] += 1

    def summary(self) -> dict[str, object]:
        """Numbers of inputs by area and end, and the tests that failed."""
        areas = sorted({area for area, _ in self.ends})
        table = {area: {end: self.ends[area, end] for end in ENDS} for area in areas}
        return {
            "areas": table,
            "inputs": sum(self.ends.values()),
            **{end: sum(row[end] for row in table.values()) for end in ENDS},
            "tests passed": self.passed,
            "tests failed": sorted(self.failed),
        }


def main() -> int:
    """Run the suite, write and print the figures; the exit status is pytest's."""
    recorder = Recorder()
    arguments = [str(HERE.parents[1] / "tests/hostile"), "-q", "-p", "no:cacheprovider", *sys.argv[1:]]
    status = int(pytest.main(arguments, plugins=[recorder]))
    text = json.dumps(recorder.summary(), indent=2) + "\n"
    (HERE / "results.json").write_text(text, encoding="utf-8")
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
