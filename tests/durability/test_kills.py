"""Commands that are killed at random moments end with the bytes of an uninterrupted run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/durability/kills.py"


def kill(output: Path, kills: int, *commands: str) -> dict:
    if os.name != "posix":
        pytest.skip("needs fork and SIGKILL")
    line = [sys.executable, str(SCRIPT), "--kills", str(kills), "--seed", "7", "--output", str(output)]
    environment = {**os.environ, "PYTHONSAFEPATH": "", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([*line, "--only", *commands], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-2000:]
    return json.loads(output.read_text())


@pytest.mark.slow
def test_a_dataset_and_an_evaluation_survive_kills(tmp_path: Path) -> None:
    found = kill(tmp_path / "kills.json", 2, "osasis-prepare", "osasis-evaluate")
    assert found["kills"] == 4 and found["problems"] == 0
    assert all(row["files_compared"] >= 8 and row["chains_compared"] >= 1 for row in found["commands"])


@pytest.mark.slow
def test_every_long_command_survives_kills(tmp_path: Path) -> None:
    names = ["pretraining", "calibrator", "adaptation", "osasis-stylize", "nnU-Net cache", "osasis-report"]
    found = kill(tmp_path / "kills.json", 2, *names)
    assert [row["command"] for row in found["commands"]] == names
    assert found["kills"] == 12 and found["problems"] == 0
