"""The real command under accelerate's real launcher, with two processes on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scale_tasks import contents, write_images

from nnunet_osasis.gate.audit import path_in
from nnunet_osasis.stylizer.archive.run import stylize_folder
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

LAUNCH = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1")
"""Several processes on one machine; without a GPU they are on the CPU. (``--cpu`` starts one process only.)"""
REST = ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")


@pytest.mark.slow
def test_accelerate_launch_shares_the_images_among_its_processes(stylizer_folder: Path, tmp_path: Path) -> None:
    source, output = write_images(tmp_path / "in", 9), tmp_path / "out"
    stylizer = OSASISStylizer.from_pretrained(stylizer_folder)
    stylize_folder(stylizer, source, tmp_path / "single", progress=False)
    line = ["-i", str(source), "-o", str(output), "--stylizer", str(stylizer_folder), "-device", "cpu"]
    done = subprocess.run(
        [sys.executable, *LAUNCH, *REST, "-m", "nnunet_osasis.scripts.stylize", *line],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout.splitlines()
    assert any(line.startswith("5 image(s)") for line in said) and any(line.startswith("4 image(s)") for line in said)
    assert any("9 of 9 images are done" in line for line in said)
    assert len(path_in(output).read_text().splitlines()) == 9
    assert contents(output) == contents(tmp_path / "single")
