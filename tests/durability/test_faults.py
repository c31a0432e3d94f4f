"""Inputs that vanish or change, clocks that jump, runs that die between two steps: handled, and said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.nnunet.case_maker import CaseRecord, FileState
from nnunet_osasis.nnunet.prepare.target import UNFINISHED
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.scripts import prepare
from nnunet_osasis.stylizer.archive.run import stylize_folder

OLD = time.time_ns() - 3600 * 10**9


@pytest.fixture
def images(image_folder: Path, tmp_path: Path) -> Path:
    """Images and masks that a test may change."""
    shutil.copytree(image_folder, tmp_path / "data")
    return tmp_path / "data"


def meddling(stylizer: OSASISStylizer, monkeypatch: pytest.MonkeyPatch, meddle) -> None:
    """Call ``meddle`` when the third image is stylized."""
    real, calls = stylizer.stylize_array, []

    def stylize(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            meddle()
        return real(*arguments, **options)

    monkeypatch.setattr(stylizer, "stylize_array", stylize)


def test_an_image_removed_meanwhile_is_named_and_what_was_made_is_kept(
    stylizer: OSASISStylizer, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meddling(stylizer, monkeypatch, (images / "images/case 4.png").unlink)
    with pytest.raises(OsasisError, match="must stay while") as caught:
        stylize_folder(stylizer, images / "images", tmp_path / "out")
    assert "case 4.png" in str(caught.value)
    assert stylize_folder(stylizer, images / "images", tmp_path / "out") == 0


def test_bad_images_are_named_together_when_all_others_are_done(
    stylizer: OSASISStylizer, images: Path, tmp_path: Path
) -> None:
    first, gray, whole = (images / f"images/case {i}.png" for i in (0, 2, 3))
    first.write_bytes(first.read_bytes()[:80])
    Image.open(gray).convert("L").save(gray)
    with pytest.raises(OsasisError, match=r"2 of 6 are not.*case 0\.png.*case 2\.png"):
        stylize_folder(stylizer, images / "images", tmp_path / "out")
    assert [path.name for path in sorted((tmp_path / "out").glob("*.png"))] == [f"case {i}.png" for i in (1, 3, 4, 5)]
    for path in (first, gray):
        shutil.copyfile(whole, path)
    assert stylize_folder(stylizer, images / "images", tmp_path / "out") == 2


def test_an_image_that_changes_while_it_is_read_is_refused(
    stylizer: OSASISStylizer, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nnunet_osasis.stylizer.archive.run as module

    real = module.read_image

    def read(path: Path):
        found = real(path)
        if path.name == "case 0.png":
            shutil.copyfile(images / "images/case 5.png", path)
        return found

    monkeypatch.setattr(module, "read_image", read)
    with pytest.raises(OsasisError, match=r"must not change.*case 0\.png"):
        stylize_folder(stylizer, images / "images", tmp_path / "out")
    assert [path.name for path in sorted((tmp_path / "out").glob("*.png"))] == [f"case {i}.png" for i in range(1, 6)]


def test_an_image_changed_since_is_stylized_again_whatever_its_date_says(
    stylizer: OSASISStylizer, images: Path, tmp_path: Path
) -> None:
    assert stylize_folder(stylizer, images / "images", tmp_path / "out") == 6
    changed, stat = images / "images/case 0.png", (images / "images/case 0.png").stat()
    shutil.copyfile(images / "images/case 1.png", changed)
    os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.utime(images / "images/case 2.png", ns=(0, 0))
    os.utime(tmp_path / "out/case 3.png", ns=(2**62, 2**62))
    assert stylize_folder(stylizer, images / "images", tmp_path / "out") == 1


def test_two_processes_do_not_stylize_into_one_folder(stylizer: OSASISStylizer, images: Path, tmp_path: Path) -> None:
    program = f"""
import sys, time
from nnunet_osasis.runtime.locks import output_lock
with output_lock({str(tmp_path / "out")!r}, "osasis-stylize"):
    print("held", flush=True)
    time.sleep(600)
"""
    other = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(OsasisError, match=f"process {other.pid} on .*osasis-stylize"):
            stylize_folder(stylizer, images / "images", tmp_path / "out")
    finally:
        other.kill()
        other.communicate()
    assert stylize_folder(stylizer, images / "images", tmp_path / "out") == 6


def settled(path: Path) -> FileState:
    """The state of a file whose stamps may be trusted, as it would be after a few seconds."""
    stat = path.stat()
    return FileState(stat.st_size, stat.st_mtime_ns, FileState.of(path).sha256, stat.st_ctime_ns, stat.st_ino)


def test_a_source_changed_under_its_old_date_and_size_is_found_by_its_ctime(tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(b"12345")
    os.utime(source, ns=(OLD, OLD))
    state = settled(source)
    assert state.verified(source, trust_stamps=True) == state
    time.sleep(0.02)  # the grain of ctimes
    source.write_bytes(b"54321")
    os.utime(source, ns=(OLD, OLD))
    assert state.verified(source, trust_stamps=True) is None


def test_stamps_in_the_future_and_of_young_files_prove_nothing(tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(b"12345")
    assert FileState.of(source).ctime_ns == 0  # it may change again within the same tick
    future = time.time_ns() + 10**15
    os.utime(source, ns=(future, future))
    assert not settled(source).unchanged(source)
    assert settled(source).verified(source, trust_stamps=True) is not None  # settled by its hash


def test_a_result_is_hashed_although_its_stamps_are_the_recorded_ones(tmp_path: Path) -> None:
    source, result = tmp_path / "source", tmp_path / "result"
    source.write_bytes(b"a")
    result.write_bytes(b"whole")
    record = CaseRecord({"source": FileState.of(source)}, settled(result))
    assert record.verified([source], result) is not None
    wrong = FileState(5, record.result.mtime_ns, "0" * 64, record.result.ctime_ns, record.result.inode)
    assert CaseRecord(record.sources, wrong).verified([source], result) is None


def prepared(images: Path, root: Path) -> list[str]:
    folders = ["--images", images / "images", "--masks", images / "masks", "-o", root / "raw"]
    return [str(part) for part in (*folders, "-d", "701", "-name", "Tiny")]


def test_a_dataset_whose_splits_were_not_in_place_is_made_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    prepare.main(prepared(images, tmp_path))
    dataset, splits = tmp_path / "raw/Dataset701_Tiny", tmp_path / "preprocessed/Dataset701_Tiny/splits_final.json"
    assert splits.is_file() and not (dataset / UNFINISHED).exists()
    (dataset / UNFINISHED).touch()
    splits.unlink()
    prepare.main(prepared(images, tmp_path))
    assert splits.is_file() and not (dataset / UNFINISHED).exists()
    with pytest.raises(OsasisError, match="not overwritten"):
        prepare.main(prepared(images, tmp_path))


def test_images_that_change_while_a_dataset_is_made_are_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunet_osasis.nnunet.prepare import convert

    def swap(*_: object) -> None:
        shutil.copyfile(images / "images/case 1.png", images / "images/case 0.png")

    def remove(*_: object) -> None:
        (images / "images/case 0.png").unlink()

    for meddle, says in ((swap, "must not change"), (remove, "must stay")):
        monkeypatch.setattr(convert, "require_one_foreground", meddle)
        with pytest.raises(OsasisError, match=says) as caught:
            prepare.main(prepared(images, tmp_path))
        assert "case 0.png" in str(caught.value)
        assert not (tmp_path / "raw/Dataset701_Tiny").exists()


def test_two_processes_do_not_make_one_dataset(images: Path, tmp_path: Path) -> None:
    from threading import Thread

    found: list[str] = []

    def second() -> None:
        try:
            prepare.main(prepared(images, tmp_path))
        except OsasisError as error:
            found.append(str(error))

    with output_lock(tmp_path / "raw", "osasis-prepare", name=".Dataset701_Tiny.lock"):
        thread = Thread(target=second)
        thread.start()
        thread.join()
    assert len(found) == 1 and "one process at a time" in found[0]
