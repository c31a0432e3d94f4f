"""Several processes at once in one output folder, and one of them killed: the folder of a single run, made once."""

from __future__ import annotations

import signal
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from scale_tasks import contents, run_parts, write_images

from nnunet_osasis.gate.audit import path_in
from nnunet_osasis.runtime.distributed import Shard
from nnunet_osasis.stylizer.archive.record import MANIFEST, PARTS
from nnunet_osasis.stylizer.archive.run import on_record, stylize_folder
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

IMAGES = 12


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("archive") / "images", IMAGES)


@pytest.fixture(scope="module")
def single(stylizer_folder: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What one process makes of all images."""
    output = tmp_path_factory.mktemp("single") / "out"
    stylizer = OSASISStylizer.from_pretrained(stylizer_folder)
    assert stylize_folder(stylizer, source, output, progress=False) == IMAGES
    return contents(output)


@pytest.mark.parametrize("count", [2, 4])
def test_parts_at_once_make_every_image_once_and_leave_the_folder_of_a_single_run(
    stylizer_folder: Path, source: Path, single: dict, tmp_path: Path, processes: ForkServerContext, count: int
) -> None:
    output = tmp_path / "out"
    assert run_parts(processes, stylizer_folder, source, output, count, killed={}) == [0] * count
    assert len(path_in(output).read_text().splitlines()) == IMAGES
    assert contents(output) == single
    assert not (output / PARTS).exists()


def test_a_part_that_is_killed_midway_is_repeated_and_makes_only_what_it_had_not_finished(
    stylizer_folder: Path, source: Path, single: dict, tmp_path: Path, processes: ForkServerContext
) -> None:
    output = tmp_path / "out"
    codes = run_parts(processes, stylizer_folder, source, output, 2, killed={1: 5})
    assert codes == [0, -signal.SIGKILL]
    done, images = on_record(source, output)
    assert images == IMAGES and IMAGES // 2 + 4 <= done <= IMAGES // 2 + 5  # one may have been half-written
    before = contents(output)
    assert all(before[name] == single[name] for name in before if name.endswith(".png") and "/" not in name)
    stylizer = OSASISStylizer.from_pretrained(stylizer_folder)
    assert stylize_folder(stylizer, source, output, share=Shard(0, 2), progress=False) == 0
    assert stylize_folder(stylizer, source, output, share=Shard(1, 2), progress=False) == IMAGES - done
    found = contents(output)
    assert len(found.pop("audit.jsonl")) <= IMAGES + 1  # the one in work may have two lines
    assert found == {name: data for name, data in single.items() if name != "audit.jsonl"}


def test_killed_parts_are_finished_by_a_run_of_all_images(
    stylizer_folder: Path, source: Path, single: dict, tmp_path: Path, processes: ForkServerContext
) -> None:
    output = tmp_path / "out"
    codes = run_parts(processes, stylizer_folder, source, output, 2, killed={0: 3, 1: 0})
    assert codes == [-signal.SIGKILL, -signal.SIGKILL]
    assert not (output / MANIFEST).exists()
    done, _ = on_record(source, output)
    assert 2 <= done <= 3
    assert stylize_folder(OSASISStylizer.from_pretrained(stylizer_folder), source, output) == IMAGES - done
    found = contents(output)
    assert {name: data for name, data in found.items() if name != "audit.jsonl"} == {
        name: data for name, data in single.items() if name != "audit.jsonl"
    }
    assert not (output / PARTS).exists()


def test_parts_that_have_to_measure_the_gates_thresholds_share_them(
    stylizer_folder: Path, source: Path, tmp_path: Path, processes: ForkServerContext
) -> None:
    unmeasured = OSASISStylizer.from_pretrained(stylizer_folder)
    unmeasured.gate = None
    unmeasured.save_pretrained(tmp_path / "stylizer")
    output = tmp_path / "out"
    assert run_parts(processes, tmp_path / "stylizer", source, output, 2, killed={}) == [0, 0]
    assert stylize_folder(unmeasured, source, tmp_path / "single", progress=False) == IMAGES
    assert contents(output) == contents(tmp_path / "single")
