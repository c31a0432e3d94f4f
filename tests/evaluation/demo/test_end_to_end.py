"""The whole line, through the public commands, in its quick form. Slow: about two minutes on two idle cores."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def test_quick_demo_makes_a_report_and_a_second_run_reuses_everything(tmp_path):
    command = [sys.executable, "-m", "nnunet_osasis.scripts.demo", "--quick", "--output", str(tmp_path / "demo")]
    command += ["-device", "cpu"]
    subprocess.run(command, check=True, timeout=1800)
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert [row["method"] for row in results["summary"]] == ["none", "histogram", "reinhard", "osasis", "truth"]
    assert len(results["cases"]) == 5 * 2 * 4
    assert results["verdict"]["title"] in (tmp_path / "demo" / "report.html").read_text()
    again = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
    assert "..." not in again.stdout and "kept from the last run" in again.stdout


def test_output_folder_with_other_content_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    command = [sys.executable, "-m", "nnunet_osasis.scripts.demo", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "other content" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
