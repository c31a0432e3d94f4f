"""One small experiment, run once for all tests that look at what it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from nnunet_osasis.evaluation.experiment.config import Experiment
from nnunet_osasis.evaluation.experiment.runner import Options, Outcome, run_experiment
from nnunet_osasis.evaluation.report.report import write_report

from .sites import experiment, write_data

METHODS = [
    "none", "identity", "histogram_matching", {"name": "half", "kind": "pooled_reinhard", "strength": 0.5},
    "fda", "gin", "truth",
]  # fmt: skip


@pytest.fixture(scope="package", autouse=True)
def own_fork_server() -> None:
    """Let the fork server be started anew, by this package's preloads: Python keeps the first one it has."""
    if hasattr(forkserver, "_forkserver"):
        forkserver._forkserver._stop()


@dataclass(frozen=True)
class Study:
    """A finished run: its experiment, data and workspace, and what it returned."""

    spec: Experiment
    data: Path
    workspace: Path
    outcome: Outcome
    results: dict[str, Any]

    def run(self, *, workers: int = 2) -> Outcome:
        """The same command again."""
        return run_experiment(self.spec, self.data, Options(self.workspace, workers), say=lambda _: None)


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Seven methods, a camera and a set as targets, two seeds, two training steps each; with its report."""
    root = tmp_path_factory.mktemp("study")
    data, workspace = write_data(root / "data"), root / "work"
    spec = experiment(methods=METHODS, seeds=[0, 1], note="A note with <markup>.")
    outcome = run_experiment(spec, data, Options(workspace, 2), say=lambda _: None)
    return Study(
        spec, data, workspace, outcome, write_report(spec, outcome, workspace, command=["osasis-report", "e.json"])
    )
