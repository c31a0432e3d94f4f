"""One process at a time in a folder: refused or waiting, and free again however the owner ended."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.runtime import locks
from nnunet_osasis.runtime.locks import LOCK, output_lock

HOLD = """
import sys, time
from nnunet_osasis.runtime.locks import output_lock
with output_lock(sys.argv[1], "osasis-other"):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds ``folder``."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    with holder(tmp_path / "out") as other, pytest.raises(OsasisError) as caught, output_lock(tmp_path / "out", "mine"):
        pass
    assert f"process {other.pid} on " in str(caught.value) and "osasis-other" in str(caught.value)
    assert "Wait for it" in str(caught.value)


def test_a_killed_owner_leaves_a_free_folder(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        assert (tmp_path / f"{LOCK}.owner").is_file()
        with output_lock(tmp_path, "mine"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_who_waits_says_so_once_and_goes_on_when_the_owner_is_gone(tmp_path: Path) -> None:
    said: list[str] = []
    with holder(tmp_path) as other:

        def say(line: str) -> None:
            said.append(line)
            other.kill()

        with output_lock(tmp_path, "mine", wait=True, say=say):
            pass
    assert len(said) == 1 and f"process {other.pid} on" in said[0] and str(tmp_path) in said[0]


def test_one_thread_may_take_its_lock_again_and_another_one_may_not(tmp_path: Path) -> None:
    refused: list[str] = []

    def try_it() -> None:
        try:
            with output_lock(tmp_path, "thread"):
                pass
        except OsasisError as error:
            refused.append(str(error))

    with output_lock(tmp_path, "mine"), output_lock(tmp_path / "." / "", "mine"):
        thread = threading.Thread(target=try_it)
        thread.start()
        thread.join()
    assert len(refused) == 1
    try_it()
    assert len(refused) == 1


def without_flock(code: int) -> Callable[..., None]:
    class NoLocks:
        def __init__(self, path: Path) -> None:
            self.path = path

        def acquire(self, **_: object) -> None:
            raise OSError(code, os.strerror(code))

    return NoLocks


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_a_file_system_has_no_locks_a_marker_file_takes_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(locks, "FileLock", without_flock(code))
    marker = tmp_path / f"{LOCK}.marker"
    with output_lock(tmp_path, "mine"):
        assert marker.is_file()
    assert not marker.exists()
    marker.write_text("7\nanother-machine\n")
    with pytest.raises(OsasisError, match=r"delete .*marker"), output_lock(tmp_path, "mine"):
        pass


def test_a_disk_that_does_not_answer_is_not_taken_for_one_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "FileLock", without_flock(errno.EIO))
    with pytest.raises(OsasisError, match="Input/output"), output_lock(tmp_path, "mine"):
        pass


def test_a_read_only_file_system_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "FileLock", without_flock(errno.EROFS))
    with pytest.raises(OsasisError, match="must be writable"), output_lock(tmp_path, "mine"):
        pass


def test_a_file_in_the_folders_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OsasisError, match="must be writable"), output_lock(tmp_path / "out", "mine"):
        pass


def test_a_garbled_owner_file_costs_no_more_than_a_name(tmp_path: Path) -> None:
    with holder(tmp_path):
        (tmp_path / f"{LOCK}.owner").write_text('{"process": 1')
        with pytest.raises(OsasisError, match="another process at work"), output_lock(tmp_path, "mine"):
            pass
