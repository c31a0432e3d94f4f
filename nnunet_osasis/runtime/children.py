"""Child processes that end when the command that started them is killed, so that none writes beside the next run.

A killed parent cannot stop its children. Therefore a child looks whether its parent is still there.
``python -m nnunet_osasis.runtime.children PARENT MODULE ARGUMENTS...`` runs a module,
``... PARENT @COMMAND ARGUMENTS...`` a console command that way.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

from nnunet_osasis.errors import OsasisError

SECONDS = 1.0
"""Between two looks."""


def end_with_parent(parent: int | None = None) -> None:
    """Watch the parent from a background thread; when it is gone, end this process and its own children.

    In a worker of ``multiprocessing`` the parent is the process that asked for it, whoever forked it. Elsewhere it is
    looked for once a second; ``parent`` is its number where the caller knows it, so that one that died before this
    line is noticed too. On Windows, where a child keeps the number of a dead parent, only workers are watched.
    """
    asked = multiprocessing.parent_process()
    if asked is None and os.name != "posix":
        return
    expected = os.getppid() if parent is None else parent

    def watch() -> None:
        if asked is not None:
            asked.join()
        while asked is None and os.getppid() == expected:
            time.sleep(SECONDS)
        _end()

    threading.Thread(target=watch, name="end_with_parent", daemon=True).start()


def _end() -> None:
    if os.name != "posix":
        os._exit(1)
    if os.getpgid(0) == os.getpid():  # the head of a group takes its workers along
        os.killpg(0, signal.SIGKILL)
    for child in _children(os.getpid()):
        with suppress(ProcessLookupError):  # it ended by itself
            os.kill(child, signal.SIGKILL)
    os._exit(1)


def _children(process: int) -> list[int]:
    """All descendants of a process, where the system lists them (Linux)."""
    found: list[int] = []
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # the thread or process ended meanwhile
            for child in map(int, listed.read_text().split()):
                found += [child, *_children(child)]
    return found


def child_command(module: str, *arguments: str) -> list[str]:
    """The command line that runs ``module`` (or ``@command``) until this process ends."""
    return [sys.executable, "-m", "nnunet_osasis.runtime.children", str(os.getpid()), module, *arguments]


def main() -> object:
    """Run what the arguments name. Raises ``OsasisError`` for a console command that is not installed."""
    parent, name, *arguments = sys.argv[1:]
    end_with_parent(int(parent))
    sys.argv = [name, *arguments]
    if not name.startswith("@"):
        runpy.run_module(name, run_name="__main__", alter_sys=True)
        return None
    sys.argv[0] = name = name[1:]
    found = entry_points(group="console_scripts", name=name)
    if not found:
        raise OsasisError(
            "The console command must be installed", found=f"no {name}", remedy="python -m pip install -e ."
        )
    return next(iter(found)).load()()


if __name__ == "__main__":
    sys.exit(main())  # type: ignore[arg-type]
