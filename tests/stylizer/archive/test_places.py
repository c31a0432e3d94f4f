"""Who may work in an output folder at once, where locks work, where they do not, and what is said."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.runtime import locks
from nnunet_osasis.runtime.distributed import Shard
from nnunet_osasis.runtime.locks import LOCK
from nnunet_osasis.runtime.records import atomic_write_json, read_sealed_json
from nnunet_osasis.runtime.storage import FOREIGN_AGE
from nnunet_osasis.stylizer.archive.record import MANIFEST, PARTS, lock_of, log_of, read_manifest
from nnunet_osasis.stylizer.archive.shards import claim_folder

SETTINGS = {"stylizer": "s"}


ELSEWHERE = {"machine": "another", "place": "another", "process": 1}
"""The owner of a lock whose processes are not seen from here."""


def make(output: Path, share: Shard, *names: str, work: str = "work", fails: bool = False) -> None:
    """A run of a share that makes ``names``."""
    with claim_folder(output, share, work) as place:
        place.log.settings(SETTINGS)
        for name in names:
            place.log.add(name, {"source": "a", "result": f"b{name}"})
        if fails:
            raise OsasisError("It must work", found="no", remedy="Try.")


def images_in(output: Path) -> list[str]:
    return sorted(read_sealed_json(output / MANIFEST, what="The manifest")["images"])


@pytest.mark.parametrize("other", [Shard(1, 2), Shard(1, 4), Shard(3, 4), Shard(0, 3), Shard()])
def test_a_run_that_would_make_the_same_images_is_refused_and_told_who_is_there(tmp_path: Path, other: Shard) -> None:
    with claim_folder(tmp_path, Shard(1, 2), "work"):
        with (
            pytest.raises(OsasisError, match=f"process {os.getpid()} on .*part 1 of 2"),
            claim_folder(tmp_path, other, "work"),
        ):
            pass
        make(tmp_path, Shard(0, 2), "a")
        make(tmp_path, Shard(2, 4), "c")
    assert images_in(tmp_path) == ["a", "c"]


def test_parts_of_another_list_of_images_are_refused_while_others_are_at_work(tmp_path: Path) -> None:
    with claim_folder(tmp_path, Shard(0, 2), "work"), pytest.raises(OsasisError, match="same images and options"):
        make(tmp_path, Shard(1, 2), work="other")
    with claim_folder(tmp_path, Shard(1, 2), "other"):
        pass


def test_the_last_part_to_end_writes_the_manifest_of_all_and_clears_what_only_parts_need(tmp_path: Path) -> None:
    with claim_folder(tmp_path, Shard(0, 2), "work") as first:
        first.log.settings(SETTINGS)
        first.log.add("a", {"source": "1", "result": "2"})
        make(tmp_path, Shard(1, 2), "b")
        assert not (tmp_path / MANIFEST).exists()
    assert images_in(tmp_path) == ["a", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, MANIFEST]


def test_a_part_waits_for_a_run_of_all_images_and_finds_its_work(tmp_path: Path) -> None:
    ended: list[str] = []

    def part() -> None:
        make(tmp_path, Shard(1, 2), "b")
        ended.append("part")

    with claim_folder(tmp_path, Shard(), "work") as place:
        thread = threading.Thread(target=part)
        thread.start()
        time.sleep(0.3)
        place.log.settings(SETTINGS)
        place.log.add("a", {"source": "1", "result": "2"})
        assert not ended
    thread.join()
    assert images_in(tmp_path) == ["a", "b"]


class NoLocks:
    """A file system without ``flock``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def acquire(self, **_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_where_a_file_system_has_no_locks_markers_keep_parts_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "FileLock", NoLocks)
    with claim_folder(tmp_path, Shard(0, 2), "work") as first:
        first.log.settings(SETTINGS)
        first.log.add("a", {"source": "1", "result": "2"})
        make(tmp_path, Shard(1, 2), "b")
        with (
            pytest.raises(OsasisError, match="No image may be made by two"),
            claim_folder(tmp_path, Shard(0, 2), "work"),
        ):
            pass
    assert images_in(tmp_path) == ["a", "b"]
    with claim_folder(tmp_path, Shard(0, 2), "work"):
        marker = tmp_path / PARTS / f"{lock_of(Shard(0, 2))}.marker"
        marker.write_text("7\nanother-machine\n")  # killed there: nobody here can know
        with (
            pytest.raises(OsasisError, match=r"delete .*part-0-of-2.lock.marker"),
            claim_folder(tmp_path, Shard(0, 2), "work"),
        ):
            pass


def test_what_a_killed_machine_left_is_merged_at_once_and_deleted_after_a_day(tmp_path: Path) -> None:
    """Its lock is free, or not seen from here: the log might still be written."""
    with claim_folder(tmp_path, Shard(0, 2), "work") as dead:
        dead.log.settings(SETTINGS)
        dead.log.add("a", {"source": "1", "result": "2"})
        kept = dead.log.path.read_bytes()
    (tmp_path / MANIFEST).unlink()
    (tmp_path / PARTS).mkdir()
    log = log_of(tmp_path, Shard(0, 2))
    log.write_bytes(kept)
    atomic_write_json(tmp_path / PARTS / "part-0-of-2.lock.owner", ELSEWHERE)
    make(tmp_path, Shard(1, 2), "b")
    assert images_in(tmp_path) == ["a", "b"] and log.read_bytes() == kept
    os.utime(log, (time.time() - 2 * FOREIGN_AGE,) * 2)
    make(tmp_path, Shard(1, 2))
    assert images_in(tmp_path) == ["a", "b"] and not (tmp_path / PARTS).exists()


def test_what_was_made_since_counts_more_than_what_a_killed_machine_left(tmp_path: Path) -> None:
    """Its log is kept for a day, in case it is still written; a repaired source's result is not undone by it."""
    with claim_folder(tmp_path, Shard(0, 2), "work") as dead:
        dead.log.settings(SETTINGS)
        dead.log.add("a", {"source": "broken", "result": "old"})
        kept = dead.log.path.read_bytes()
    (tmp_path / PARTS).mkdir()
    log = log_of(tmp_path, Shard(0, 2))
    log.write_bytes(kept)
    os.utime(log, (time.time() - 60,) * 2)
    atomic_write_json(tmp_path / PARTS / "part-0-of-2.lock.owner", ELSEWHERE)
    with claim_folder(tmp_path, Shard(), "work") as whole:
        whole.log.settings(SETTINGS)
        whole.log.add("a", {"source": "repaired", "result": "new"})
    assert log.is_file()
    for _ in range(2):
        make(tmp_path, Shard(1, 2))
        assert read_manifest(tmp_path)["images"]["a"] == {"source": "repaired", "result": "new"}


def test_an_error_in_a_part_is_what_the_user_sees_and_what_it_finished_is_on_record(tmp_path: Path) -> None:
    with pytest.raises(OsasisError, match="It must work"):
        make(tmp_path, Shard(1, 2), "b", fails=True)
    assert images_in(tmp_path) == ["b"]
