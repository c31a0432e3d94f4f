"""Runs that die between two steps: the next one goes on, nothing half-done is taken for done, no child stays behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from specimens import build_tiny

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.experiment.nnunet import is_whole_checkpoint
from nnunet_osasis.runtime.children import child_command
from nnunet_osasis.training import build as build_module
from nnunet_osasis.training.loop import RunLog

SLEEPING = """
import os, sys, time
from pathlib import Path
from nnunet_osasis.runtime.workers import Task, run_tasks

def sleep(path, threads):
    Path(path).with_suffix(".half").write_text(str(os.getpid()))
    os.replace(Path(path).with_suffix(".half"), path)
    time.sleep(600)

if __name__ == "__main__":
    run_tasks([Task("one", sleep, (sys.argv[1],))], workers=1, devices=("cpu",), describe="t", done=print)
"""


def test_a_torn_line_does_not_keep_a_training_from_going_on(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "t.jsonl", start=0)
    for iteration in (10, 20, 30):
        log.write(iteration, loss=1.0)
    with (tmp_path / "t.jsonl").open("a") as stream:
        stream.write('{"iteration": 35, "loss"}\n{"iteration": "x"}\n{"iteration": 40, "lo')
    RunLog(tmp_path / "t.jsonl", start=20).write(21, loss=2.0)
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [10, 20, 21]


def test_a_build_killed_after_its_stylizer_was_whole_leaves_no_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(self) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build_module.StylizerBuild, "_drop_checkpoints", dies)
        with pytest.raises(KeyboardInterrupt):
            build_tiny(tmp_path / "s")
    assert list((tmp_path / "s/training").glob("*.safetensors"))
    build_tiny(tmp_path / "s", resume=True)
    assert not list((tmp_path / "s/training").glob("*.safetensors"))


def test_two_processes_do_not_build_one_stylizer(tmp_path: Path) -> None:
    held = [sys.executable, "-c", "import sys; from nnunet_osasis.runtime.locks import output_lock as o\n"
            "with o(sys.argv[1], 'osasis-pretrain-stylizer'): print('held', flush=True); sys.stdin.read()"]  # fmt: skip
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*held, str(tmp_path / "s")], text=True, **pipes) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(OsasisError, match="one process at a time"):
            build_tiny(tmp_path / "s")
        other.communicate("")


def test_children_end_when_the_command_that_started_them_is_killed(tmp_path: Path) -> None:
    if os.name != "posix":
        pytest.skip("not watched on Windows")
    child = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    (tmp_path / "sleeper.py").write_text(child)
    parent = (
        "import subprocess, sys\nfrom nnunet_osasis.runtime.children import child_command\n"
        "subprocess.run(child_command('sleeper', sys.argv[1]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": ""}
    started = subprocess.Popen([sys.executable, "-c", parent, str(tmp_path / "pid")], env=environment)
    number = _wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    started.kill()
    started.wait()
    assert _wait_for(lambda: not Path(f"/proc/{number}/cmdline").exists() or _is_zombie(int(number)))


def test_workers_end_when_the_command_that_started_them_is_killed(tmp_path: Path) -> None:
    if not Path("/proc/self/task").is_dir():
        pytest.skip("needs /proc to list processes")
    (tmp_path / "sleeping.py").write_text(SLEEPING)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": ""}
    command = [sys.executable, str(tmp_path / "sleeping.py"), str(tmp_path / "pid")]
    started = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        number = int(_wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    finally:
        started.kill()
        started.wait()
    assert _wait_for(lambda: not Path(f"/proc/{number}/cmdline").exists() or _is_zombie(number))


def _wait_for(ask):
    for _ in range(2400):
        if found := ask():
            return found
        time.sleep(0.05)
    return None


def _is_zombie(process: int) -> bool:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_child_that_outlived_its_parent_before_it_looked_ends_too() -> None:
    program = child_command("this")
    program[3] = "1999999999"  # no such parent
    ended = subprocess.run([*program[:4], "timeit", "-n", "1", "-r", "1", "import time; time.sleep(60)"], check=False)
    assert ended.returncode == 1


def test_a_checkpoint_that_nnunet_was_killed_in_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_latest.pth"
    assert not is_whole_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", np.arange(1000).tobytes())
    assert is_whole_checkpoint(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert not is_whole_checkpoint(path)
    path.write_bytes(whole[:900] + bytes([whole[900] ^ 4]) + whole[901:])
    assert not is_whole_checkpoint(path)
