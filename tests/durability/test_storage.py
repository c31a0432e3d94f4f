"""Files that are whole or absent, known by their hash; and what killed processes leave behind."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.runtime.records import SEAL, append_jsonl, read_jsonl, read_sealed_json, write_sealed_json
from nnunet_osasis.runtime.storage import (
    FOREIGN_AGE,
    _locked,
    _started,
    atomic_write,
    atomic_write_bytes,
    host_name,
    place,
    remove_stale_temporaries,
    sync_folder,
    temporary_prefix,
)

VALUE = {"settings": {"strength": None, "seed": 3}, "images": {"a": [1.5, "é", True]}}


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_flipped_bit_of_a_sealed_file_is_found_or_changes_nothing(tmp_path: Path) -> None:
    file = write_sealed_json(tmp_path / "m.json", VALUE)
    whole, found = file.read_bytes(), 0
    for bit in range(len(whole) * 8):
        file.write_bytes(flipped(whole, bit))
        try:
            assert read_sealed_json(file, what="It") == VALUE
        except OsasisError:
            found += 1
    assert found > len(whole) * 8 * 0.99


def test_keys_that_are_no_text_and_floats_keep_their_seal(tmp_path: Path) -> None:
    value = {"b": {10: 0.1, 9: 1e-300, 100: -0.0}, SEAL: "of an earlier reading"}
    write_sealed_json(tmp_path / "m.json", value)
    assert read_sealed_json(tmp_path / "m.json", what="It") == {"b": {"10": 0.1, "9": 1e-300, "100": -0.0}}


def test_the_folder_is_flushed_after_the_name_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real_replace, real_fsync = os.replace, os.fsync

    def fsync(handle: int) -> None:
        order.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        real_fsync(handle)

    def replace(source: Path, target: Path) -> None:
        order.append("rename")
        real_replace(source, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to tell files from folders")
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "fsync", fsync)
    atomic_write_bytes(tmp_path / "a.txt", b"whole")
    assert order == ["file", "rename", "folder"]


def test_a_file_system_that_cannot_flush_folders_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(code: int) -> None:
        def fsync(handle: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", fsync)

    refuse(errno.EINVAL)
    sync_folder(tmp_path)
    refuse(errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        sync_folder(tmp_path)


def dead_process() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    mine = tmp_path / f"{temporary_prefix()}x.tmp.png"
    parents = tmp_path / f".osasis-{place()}-{os.getppid()}-{_started(os.getppid())}-x.tmp.png"
    dead = tmp_path / f".osasis-{place()}-{dead_process()}-1-x.tmp.png"
    dead_folder = tmp_path / f".osasis-{place()}-{dead_process()}-1-y"
    young, old = (tmp_path / f".osasis-{'0' * 12}-7-1-{age}.tmp" for age in ("young", "old"))
    foreign = tmp_path / ".hidden"
    no_process = tmp_path / f".osasis-{host_name()}-{'9' * 30}-x"
    dead_folder.mkdir()
    (dead_folder / "part").touch()
    for file in (mine, parents, dead, young, old, foreign, no_process):
        file.touch()
    past = time.time() - FOREIGN_AGE - 60
    os.utime(old, (past, past))
    os.utime(young, (time.time() + 9e8,) * 2)  # the other machine's clock is ahead
    assert remove_stale_temporaries(tmp_path) == 3
    assert sorted(tmp_path.iterdir()) == sorted([mine, parents, young, foreign, no_process])


def test_a_process_number_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    (tmp_path / f".osasis-{place()}-{os.getpid()}-{_started(os.getpid()) - 1}-x").touch()
    assert remove_stale_temporaries(tmp_path) == 1


@pytest.mark.parametrize("name", [f".osasis-{'0' * 12}-1-1-x", ".osasis-former_name-1-x"])
def test_what_a_process_elsewhere_locks_stays_whatever_its_age(name: str, tmp_path: Path) -> None:
    """Containers share a machine's name, and files, but not its processes."""
    (tmp_path / name).mkdir()
    past = time.time() - FOREIGN_AGE - 60
    os.utime(tmp_path / name, (past, past))
    with _locked(tmp_path / name):
        assert remove_stale_temporaries(tmp_path) == 0
    assert remove_stale_temporaries(tmp_path) == 1


def test_a_place_is_a_boot_a_name_and_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    here = place()
    monkeypatch.setattr(os, "stat", lambda path: SimpleNamespace(st_ino=7))
    assert place() != here


def test_what_cannot_be_read_is_not_called_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        atomic_write(tmp_path / "a", lambda part: shutil.copyfile(tmp_path / "elsewhere/missing", part))
    with pytest.raises(OsasisError, match="writable"):
        atomic_write(tmp_path / "a", lambda part: (part / "no folder").write_bytes(b""))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
def test_a_file_that_may_not_grow_leaves_the_old_one_whole(tmp_path: Path) -> None:
    program = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from nnunet_osasis.runtime.storage import atomic_write_bytes
atomic_write_bytes({str(tmp_path / "a.bin")!r}, bytes(5000))
"""
    atomic_write_bytes(tmp_path / "a.bin", b"whole")
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert "ulimit -f" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"] and (tmp_path / "a.bin").read_bytes() == b"whole"


def test_a_write_that_is_killed_leaves_the_old_file_and_a_name_that_tells_whose_it_was(tmp_path: Path) -> None:
    program = f"""
import os, signal
from nnunet_osasis.runtime.storage import atomic_write
def write(path):
    path.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
atomic_write({str(tmp_path / "a.bin")!r}, write)
"""
    atomic_write_bytes(tmp_path / "a.bin", b"whole")
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode < 0
    assert (tmp_path / "a.bin").read_bytes() == b"whole"
    assert len(list(tmp_path.iterdir())) == 2
    assert remove_stale_temporaries(tmp_path) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_a_machine_name_of_odd_characters_is_a_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "dr-who's/pc")
    assert host_name() == "dr_who_s_pc" and f"-{os.getpid()}-" in temporary_prefix()
    atomic_write_bytes(tmp_path / "a", b"")


@pytest.mark.parametrize(("code", "says"), [(errno.ENOSPC, "room"), (errno.EDQUOT, "room"), (errno.EROFS, "writable")])
def test_a_disk_that_refuses_leaves_the_old_file_alone(tmp_path: Path, code: int, says: str) -> None:
    def fill(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    atomic_write_bytes(tmp_path / "a", b"old")
    with pytest.raises(OsasisError, match=says):
        atomic_write(tmp_path / "a", fill)
    assert (tmp_path / "a").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_limit_of_file_sizes_is_said(tmp_path: Path) -> None:
    program = f"""
import resource, signal
from nnunet_osasis.runtime.storage import atomic_write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
atomic_write_bytes({str(tmp_path / "a")!r}, bytes(5000))
"""
    if os.name != "posix":
        pytest.skip("POSIX limits")
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert "ulimit -f" in ended.stderr and list(tmp_path.iterdir()) == []


def test_a_torn_line_costs_that_line_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "log.jsonl"
    append_jsonl(log, {"n": 1})
    with log.open("ab") as stream:
        stream.write(b'{"n": 2, "text": "half}')  # ends in a brace, and is no line
    append_jsonl(log, {"n": 3})
    with log.open("ab") as stream:
        stream.write(b"\xff\x00garbled\n[4]\n")
    append_jsonl(log, {"n": 5})
    assert [row["n"] for row in read_jsonl(log)] == [1, 3, 5]
    assert "3 line(s)" in caplog.text


def test_a_log_on_a_full_disk_ends_in_one_clear_message() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(OsasisError, match="room on the disk"):
        append_jsonl("/dev/full", {"n": 1})
