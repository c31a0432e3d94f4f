"""The record of what was made: one line an image whatever their number, torn and altered lines seen, old ones read."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest
from scale_tasks import write_images

from nnunet_osasis.runtime.distributed import Shard
from nnunet_osasis.runtime.records import append_sealed_line, iter_jsonl, sealed, write_sealed_json
from nnunet_osasis.stylizer.archive.record import (
    MANIFEST,
    Log,
    digest_of_entry,
    known_digests,
    log_of,
    merge,
    names_on_record,
)
from nnunet_osasis.stylizer.archive.run import stylize_folder
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

SETTINGS = {"stylizer": "s", "strength": None}


def entry(i: int) -> dict[str, str]:
    return {"source": f"{i:064x}", "result": f"{i + 7:064x}"}


def long_log(output: Path, count: int) -> Path:
    """The log of a killed run that had made ``count`` images."""
    log = Log(output, Shard(0, 2), "work")
    log.settings(SETTINGS)
    lines = (json.dumps(sealed({"image": f"{i:06d}.png", "entry": entry(i)})) for i in range(count))
    with log.path.open("a") as stream:
        stream.writelines(f"{line}\n" for line in lines)
    return log.path


def test_a_record_of_100000_images_is_read_and_goes_on_with_one_write_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = long_log(tmp_path, 100_000)
    names = {f"{i:06d}.png" for i in range(0, 100_000, 50)}
    assert set(known_digests(tmp_path, SETTINGS, names, gated=False)) == names

    def rewritten(*_: object) -> None:
        pytest.fail("a file was written anew")

    monkeypatch.setattr(os, "replace", rewritten)
    before, inode = path.stat().st_size, path.stat().st_ino
    log = Log(tmp_path, Shard(0, 2), "work")
    head = path.stat().st_size
    log.add("new.png", entry(1))
    line = json.dumps(sealed({"image": "new.png", "entry": entry(1)})) + "\n"
    assert path.stat().st_size == head + len(line) and head - before < 200
    assert path.stat().st_ino == inode


def test_what_is_held_of_an_image_on_record_is_less_than_200_bytes(tmp_path: Path) -> None:
    count = 5000
    long_log(tmp_path, count)
    names = {f"{i:06d}.png" for i in range(count)}  # the names a run holds anyway
    tracemalloc.start()
    known = known_digests(tmp_path, SETTINGS, names, gated=False)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(known) == count and held < 200 * count


def test_a_torn_last_line_costs_its_image_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = long_log(tmp_path, 5)
    path.write_bytes(path.read_bytes()[:-20])
    append_sealed_line(path, {"image": "after.png", "entry": entry(9)})
    assert names_on_record(tmp_path) == {*(f"{i:06d}.png" for i in range(4)), "after.png"}
    assert "1 line(s)" in caplog.text


def test_no_altered_line_is_believed(tmp_path: Path) -> None:
    path = long_log(tmp_path, 3)
    whole = list(iter_jsonl(path, with_seals=True))
    data = path.read_bytes()
    for bit in range(0, 8 * len(data), 13):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        path.write_bytes(altered)
        assert all(row in whole for row in iter_jsonl(path, with_seals=True)), bit


def test_the_merged_manifest_has_the_bytes_of_one_that_was_written_whole_and_the_last_entry_counts(
    tmp_path: Path,
) -> None:
    path = long_log(tmp_path, 4)
    append_sealed_line(path, {"image": "000001.png", "entry": entry(77)})
    merge(tmp_path)
    merge(tmp_path)
    images = {f"{i:06d}.png": entry(i) for i in range(4)} | {"000001.png": entry(77)}
    write_sealed_json(tmp_path / "expected.json", {"settings": SETTINGS, "images": images})
    assert (tmp_path / MANIFEST).read_bytes() == (tmp_path / "expected.json").read_bytes()
    assert not path.exists()
    known = known_digests(tmp_path, SETTINGS, {"000001.png"}, gated=False)
    assert known == {"000001.png": digest_of_entry(entry(77))}


def test_a_merge_that_is_killed_before_it_deletes_the_logs_is_repeated(tmp_path: Path) -> None:
    path = long_log(tmp_path, 4)
    audit = path.with_name("part-0-of-2-audit.jsonl")
    audit.write_text(json.dumps({"case": "000001.png", "decision": "full", "scores": {}, "failures": {}}) + "\n")
    lines = {p: p.read_bytes() for p in (path, audit)}
    merge(tmp_path)
    manifest = (tmp_path / MANIFEST).read_bytes()
    path.parent.mkdir()
    for each, data in lines.items():
        each.write_bytes(data)
    merge(tmp_path)
    assert (tmp_path / MANIFEST).read_bytes() == manifest
    assert len((tmp_path / "osasis_audit/audit.jsonl").read_text().splitlines()) == 1


def test_parts_go_on_from_a_manifest(stylizer_folder: Path, tmp_path: Path) -> None:
    source, output = write_images(tmp_path / "in", 6), tmp_path / "out"
    stylizer = OSASISStylizer.from_pretrained(stylizer_folder)
    stylize_folder(stylizer, source, output, gated=False)
    whole = (output / MANIFEST).read_bytes()
    old = json.loads(whole)
    del old["images"]["image 0003.png"]
    write_sealed_json(output / MANIFEST, old)
    made = [stylize_folder(stylizer, source, output, gated=False, share=Shard(k, 2)) for k in range(2)]
    assert made == [0, 1]
    assert (output / MANIFEST).read_bytes() == whole
    assert not log_of(output, Shard(0, 2)).exists()
