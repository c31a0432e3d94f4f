"""Commands as child processes: run by name, on as many cores as they are shown, and gone with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.runtime.children import child_command, console_command


@pytest.mark.parametrize("one_core", [True, False])
def test_a_module_sees_the_cores_it_is_shown_and_its_arguments(one_core: bool, tmp_path: Path) -> None:
    (tmp_path / "cores.py").write_text(
        "import multiprocessing, os, sys\nprint(os.cpu_count(), multiprocessing.cpu_count(), *sys.argv[1:])\n"
    )
    command = child_command("cores", "-x", "a b", one_core=one_core)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": ""}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    cores = 1 if one_core else os.cpu_count()
    assert ended.stdout == f"{cores} {cores} -x a b\n"


def test_a_console_command_runs_by_its_name() -> None:
    ended = subprocess.run(child_command("@osasis-info", "--version"), capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("osasis-info of nnunet-osasis")


def test_a_command_that_is_not_installed_is_named() -> None:
    with pytest.raises(OsasisError, match=r"no osasis-nothing.*pip install"):
        console_command("osasis-nothing")


POOL = """
import time
from nnunet_osasis.runtime.workers import workers
if __name__ == "__main__":
    with workers(2, progress=False) as mapped:
        mapped(time.sleep, [60, 60], "sleep")
"""

TASKS = """
import time
from nnunet_osasis.runtime.workers import Task, run_tasks
if __name__ == "__main__":
    tasks = [Task(str(n), __import__("sleeping").sleep, (60,)) for n in range(2)]
    run_tasks(tasks, workers=2, devices=["cpu"], describe="sleep", done=print)
"""

COMMAND = """
import signal
import subprocess
import sys
import threading
import time
from nnunet_osasis.runtime.children import child_command
subprocess.run(child_command("sleeping"))
"""

LAUNCHED = """
import os, subprocess, sys
ranks = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "TORCHELASTIC_RUN_ID": "none"}
code = "import sleeping; from nnunet_osasis.runtime.distributed import launched; launched(); sleeping.sleep(60, 1)"
subprocess.run([sys.executable, "-c", code], env=os.environ | ranks)
"""

SLEEPING = """
import time
def sleep(seconds, threads):
    time.sleep(seconds)
    return {}
if __name__ == "__main__":
    sleep(60, 1)
"""


def children_of(pid: int) -> int:
    try:
        return sum(len(task.read_text().split()) for task in Path(f"/proc/{pid}/task").glob("*/children"))
    except FileNotFoundError:
        return 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("wait", [0.0, 3.0], ids=["at their start", "at work"])
@pytest.mark.parametrize("program", [POOL, TASKS, COMMAND, LAUNCHED], ids=["pool", "tasks", "command", "launched"])
def test_nothing_outlives_a_killed_parent(program: str, wait: float, tmp_path: Path) -> None:
    """Whoever reads a killed command's output must see its end: no child may hold it open."""
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "sleeping.py").write_text(SLEEPING)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "", "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not children_of(parent.pid) and parent.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(wait)
    assert parent.poll() is None and children_of(parent.pid)
    os.kill(parent.pid, signal.SIGKILL)
    reader = threading.Thread(target=parent.communicate, daemon=True)
    reader.start()
    reader.join(30)
    closed = not reader.is_alive()
    if not closed:
        os.killpg(parent.pid, signal.SIGKILL)
    assert closed
