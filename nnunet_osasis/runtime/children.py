"""Child processes that end when the process that started them is gone, so that none writes beside the next run.

A killed parent cannot stop its children. Therefore every child watches its parent. The module runs other modules and
console commands that way: ``python -m nnunet_osasis.runtime.children [--one-core] PARENT NAME ARGUMENTS...``.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import entry_points

import psutil

from nnunet_osasis.errors import OsasisError

WATCH_SECONDS = 1.0
"""Seconds between two looks at the parent."""

LAUNCHER = "TORCHELASTIC_RUN_ID"
"""Environment variable that torch's launcher, which is also accelerate's, sets for the processes that it watches."""

REAPERS = ("systemd", "init")
"""Names of processes that adopt others whose parent is gone, beside number 1."""

ONE_CORE = "--one-core"
"""Option of this module: the command that it runs sees a single core."""


def exit_with_parent(parent: int | None = None) -> None:
    """Watch the parent from a background thread; when it is gone, end this process and all its descendants.

    A worker of ``multiprocessing`` watches the process that asked for it, whoever forked it.

    Args:
        parent: process id of the parent, where the caller knows it: a parent that died before this line is noticed too.
    """
    asked_for_by = multiprocessing.parent_process()
    try:
        watched = psutil.Process(os.getppid() if parent is None else parent)
    except psutil.NoSuchProcess:
        _exit()

    def watch() -> None:
        if asked_for_by is not None:
            asked_for_by.join()
        else:
            while _is_alive(watched):
                time.sleep(WATCH_SECONDS)
        _exit()

    threading.Thread(target=watch, name="exit_with_parent", daemon=True).start()


def exit_with_launcher() -> None:
    """:func:`exit_with_parent`, if ``accelerate launch`` or ``torchrun`` started this process (once is enough).

    Processes that somebody else started with the same variables may outlive their shell.
    """
    names = {thread.name for thread in threading.enumerate()}
    if LAUNCHER not in os.environ or exit_with_parent.__name__ in names:
        return
    with suppress(psutil.Error):  # a system that does not tell: the watch below may still notice
        parent = psutil.Process(os.getppid())
        adopted = parent.pid == 1 or parent.name() in REAPERS
        if adopted and not any("accelerate" in part or "torch" in part for part in parent.cmdline()):
            _exit()  # the launcher was killed before this line
    exit_with_parent()


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _exit() -> None:
    if os.name == "posix" and os.getpgid(0) == os.getpid():  # the head of a process group takes the group along
        os.killpg(0, signal.SIGKILL)
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended by itself
            child.kill()
    os._exit(1)


def child_command(name: str, *arguments: str, one_core: bool = False) -> list[str]:
    """The command line that runs a module or a console command for as long as this process lives.

    Args:
        name: a module, or ``@`` and a console command.
        arguments: the arguments of the module or command.
        one_core: show one core to the command, however many there are. nnU-Net gives PyTorch a thread per core on
            CPUs, whatever OMP_NUM_THREADS says; small networks train faster with one thread, several side by side.

    >>> child_command("@nnUNetv2_train", "501", "2d", "0")[4:]
    ['@nnUNetv2_train', '501', '2d', '0']
    """
    options = [ONE_CORE] if one_core else []
    return [sys.executable, "-m", "nnunet_osasis.runtime.children", *options, str(os.getpid()), name, *arguments]


def console_command(name: str) -> Callable[[], object]:
    """The function behind an installed console command. Raises ``OsasisError`` when there is none."""
    entries = entry_points(group="console_scripts", name=name)
    if not entries:
        raise OsasisError(
            "The console command must be installed", found=f"no {name}", remedy="python -m pip install -e ."
        )
    return next(iter(entries)).load()


def main() -> object:
    """Run the module or console command that the arguments name."""
    one_core = sys.argv[1] == ONE_CORE
    parent, name, *arguments = sys.argv[2:] if one_core else sys.argv[1:]
    exit_with_parent(int(parent))
    if one_core:  # what PYTHON_CPU_COUNT=1 does from Python 3.13 on
        os.cpu_count = multiprocessing.cpu_count = lambda: 1
    sys.argv = [name.removeprefix("@"), *arguments]
    if name.startswith("@"):
        return console_command(sys.argv[0])()
    runpy.run_module(name, run_name="__main__", alter_sys=True)
    return None


if __name__ == "__main__":
    sys.exit(main())  # type: ignore[arg-type]
