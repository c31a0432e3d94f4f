"""Memory does not depend on how many images there are; they come and go one after the other."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from scale_tasks import write_images

from nnunet_osasis.stylizer.archive import run as module
from nnunet_osasis.stylizer.archive.prefetch import prefetched
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

SIDE = 96
IMAGE = SIDE * SIDE * 3
"""Bytes of one image as it is stored in memory."""


def peak_of(stylizer: OSASISStylizer, source: Path, output: Path) -> int:
    tracemalloc.start()
    module.stylize_folder(stylizer, source, output, gated=False, progress=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_no_image_stays_in_memory(stylizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stylizer = OSASISStylizer.from_pretrained(stylizer_folder)
    monkeypatch.setattr(stylizer, "stylize_array", lambda array, **_: np.float32(255) - array)
    few, many = write_images(tmp_path / "few", 40, SIDE), write_images(tmp_path / "many", 160, SIDE)
    peak_of(stylizer, few, tmp_path / "warm")
    peaks = [peak_of(stylizer, source, tmp_path / f"{source.name}-out") for source in (few, many)]
    assert peaks[1] - peaks[0] < 120 * IMAGE / 8, peaks  # what 15 of the 120 more would take; names are some of it


@pytest.fixture
def living(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images there are, whenever one is read."""
    counts: list[int] = []
    there: list[weakref.ref[np.ndarray]] = []
    real = module.read_image

    def read(path: Path):
        loaded = real(path)
        there.append(weakref.ref(loaded.array))
        counts.append(sum(one() is not None for one in there))
        return loaded

    monkeypatch.setattr(module, "read_image", read)
    return counts


def test_of_pictures_three_are_in_memory_and_of_volumes_one(
    stylizer_folder: Path, tmp_path: Path, living: list[int]
) -> None:
    from PIL import Image

    stylizer = OSASISStylizer.from_pretrained(stylizer_folder)
    source = write_images(tmp_path / "in", 20)
    module.stylize_folder(stylizer, source, tmp_path / "out", gated=False, progress=False)
    assert len(living) == 20 and max(living) <= 3
    living.clear()
    (tmp_path / "tiff").mkdir()
    for path in sorted(source.iterdir())[:8]:
        Image.open(path).save(tmp_path / "tiff" / f"{path.stem}.tif")
    module.stylize_folder(stylizer, tmp_path / "tiff", tmp_path / "out of tiff", gated=False, progress=False)
    assert len(living) == 8 and max(living) == 1


def steps(
    items: list[int], done: list[str], *, fails: str = "", alone: set[int] | None = None
) -> Generator[bool, None, None]:
    def step(name: str):
        def run(item: int, *_: object) -> int | None:
            if f"{name} {item}" == fails:
                raise ValueError(fails)
            done.append(f"{name} {item}")
            return item if item >= 0 else None

        return run

    return prefetched(items, step("read"), step("work"), step("write"), alone=lambda item: item in (alone or set()))


def test_every_item_is_read_worked_on_and_written_in_order() -> None:
    done: list[str] = []
    assert list(steps([0, 1, -2, 3, 4], done, alone={3})) == [True, True, False, True, True]
    for name, items in (("read", [0, 1, -2, 3, 4]), ("work", [0, 1, 3, 4]), ("write", [0, 1, 3, 4])):
        assert [line for line in done if line.startswith(name)] == [f"{name} {item}" for item in items]
    assert done.index("write 1") < done.index("read 3") and done.index("write 3") < done.index("read 4")
    assert list(steps([], [])) == []


@pytest.mark.parametrize("name", ["read", "work", "write"])
def test_what_fails_ends_the_rest_and_what_came_before_is_written(name: str) -> None:
    done: list[str] = []
    with pytest.raises(ValueError, match=f"{name} 3"):
        list(steps([0, 1, 2, 3, 4, 5, 6], done, fails=f"{name} 3"))
    written = [line for line in done if line.startswith("write")]
    assert written == ["write 0", "write 1", "write 2"]


def test_leaving_early_writes_what_was_made() -> None:
    done: list[str] = []
    running = steps([0, 1, 2, 3], done)
    assert next(running) is True
    running.close()
    assert "write 0" in done and "work 1" not in done
