"""The public commands, as child processes: list arguments, a log each, several side by side, readable failures."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.children import child_command

LAST_LINES = 25

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Command:
    """A console command and its arguments, as a user would type them.

    ``one_core`` shows it a single core, see :func:`nnunet_osasis.runtime.children.child_command`.
    """

    name: str
    arguments: tuple[str, ...]
    one_core: bool = False

    @property
    def shown(self) -> tuple[str, ...]:
        """Name and arguments."""
        return (self.name, *self.arguments)

    @property
    def text(self) -> str:
        """The line to type in a shell."""
        return shlex.join(self.shown)


@dataclass
class Child:
    """A command to run once, as soon as ``ready()``.

    ``finished`` is called with its seconds when it ended well and ``result`` exists. With ``clear`` an older ``result``
    folder is removed before it starts.
    """

    command: Command
    log: Path
    environment: dict[str, str]
    result: Path
    clear: bool = False
    ready: Callable[[], bool] = lambda: True
    finished: Callable[[float], None] = lambda seconds: None
    process: subprocess.Popen | None = None
    stream: IO[bytes] | None = None
    started: float = 0.0

    def start(self) -> None:
        """Start it, its output going to the log."""
        found = find_command(self.command.name)
        known = entry_points(group="console_scripts", name=self.command.name)
        start = child_command(f"@{self.command.name}", one_core=self.command.one_core) if known else [found]
        if self.clear and self.result.is_dir():
            shutil.rmtree(self.result)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.stream = open(self.log, "wb")  # noqa: SIM115 (closed by close)
        self.stream.write(f"$ {self.command.text}\n".encode())
        self.stream.flush()
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*start, *self.command.arguments],
            stdin=subprocess.DEVNULL,
            stdout=self.stream,
            stderr=subprocess.STDOUT,
            env=self.environment,
            # A process group of its own: stopping it then stops its augmentation workers too.
            start_new_session=os.name == "posix",
        )

    def poll(self) -> bool:
        """Whether it has ended. Raises ``OsasisError`` when it failed."""
        assert self.process is not None  # noqa: S101
        if self.process.poll() is None:
            return False
        self.close()
        if self.process.returncode != 0:
            self._fail(f"exit status {self.process.returncode}")
        if not self.result.exists():
            self._fail(f"no {self.result} although it ended well")
        self.finished(time.monotonic() - self.started)
        return True

    def close(self) -> None:
        """Stop it, with its workers, if it still runs, and close the log."""
        if self.process is not None and self.process.poll() is None:
            _stop(self.process, force=False)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                _stop(self.process, force=True)
                self.process.wait()
        if self.stream is not None:
            self.stream.close()

    def _fail(self, found: str) -> None:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        shown = "\n".join(f"    {line[:300]}" for line in lines)
        raise OsasisError(
            f"The command must succeed: {self.command.text}",
            found=found,
            remedy=f"The end of its log {self.log}:\n{shown}\nRun the demo again to go on from here.",
        )


def _stop(process: subprocess.Popen, *, force: bool) -> None:
    if os.name == "posix":
        os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)
    elif force:
        process.kill()
    else:
        process.terminate()


def run_children(children: Sequence[Child], *, at_once: int) -> None:
    """Run all ``children``, ``at_once`` side by side, the first ones first. The first failure stops the others."""
    waiting, running = list(children), list[Child]()
    with _termination_as_exit():
        try:
            while waiting or running:
                for child in [child for child in waiting if child.ready()][: at_once - len(running)]:
                    waiting.remove(child)
                    running.append(child)
                    child.start()
                if not running:
                    raise OsasisError("Steps must not wait for each other", found=[c.command.text for c in waiting])
                for child in list(running):
                    if child.poll():
                        running.remove(child)
                time.sleep(POLL_SECONDS)
        finally:
            for child in running:
                child.close()


@contextmanager
def _termination_as_exit() -> Iterator[None]:
    """Turn SIGTERM (``timeout``, batch systems) into an exception, so that children are not left behind."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def find_command(name: str) -> str:
    """Path of a console command: beside this interpreter, else on the search path.

    Raises ``OsasisError`` when it is in neither place.
    """
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    found = beside or shutil.which(name)
    if found is None:
        raise OsasisError(
            "The demo needs its commands installed",
            found=f"no {name} beside {sys.executable} or on the search path",
            remedy="Install the package into this environment: python -m pip install -e .",
        )
    return found
