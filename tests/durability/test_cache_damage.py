"""The cache that a network is trained on: repaired before use, waited for, served from where nothing can be written."""

from __future__ import annotations

import os
import time
from pathlib import Path
from threading import Thread

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.nnunet.cache import StylizedCache
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.dataset import StylizedDataset
from nnunet_osasis.runtime.locks import output_lock

from ..nnunet.conftest import RGB, Home, Warmer, home, prepared  # noqa: F401 (fixtures)
from .damage import flip, some_bits

KEYS = ["case_0", "case_2", "case_5"]


@pytest.fixture
def cache(home: Home) -> StylizedCache:  # noqa: F811
    """A finished cache of three cases."""
    found = StylizedCache(NnunetConfiguration.load(RGB, "2d"), Warmer(3), None)
    assert found.build(KEYS) == KEYS
    return found


def test_a_flipped_bit_under_unchanged_stamps_is_repaired_before_a_training(cache: StylizedCache) -> None:
    path = cache.image_path("case_2")
    whole = path.read_bytes()
    for bit in some_bits(path, 3):
        flip(path, bit)
        assert cache.build(KEYS) == ["case_2"]
        assert path.read_bytes() == whole


def test_a_flipped_bit_in_a_record_costs_its_case_and_nothing_else(cache: StylizedCache) -> None:
    record = cache.records / "cases/case_5.json"
    whole = cache.image_path("case_5").read_bytes()
    for bit in some_bits(record, 3):
        flip(record, bit)
        assert cache.build(KEYS) in (["case_5"], [])
        assert cache.image_path("case_5").read_bytes() == whole


def test_clocks_that_jump_cost_no_case(cache: StylizedCache, home: Home) -> None:  # noqa: F811
    future = time.time_ns() + 10**16
    os.utime(cache.image_path("case_0"), ns=(future, future))
    for path in (home.raw(RGB) / "imagesTr").iterdir():
        os.utime(path, ns=(0, 0) if "case_2" in path.name else (future, future))
    assert cache.build(KEYS) == []


def test_a_complete_cache_serves_from_a_read_only_folder(cache: StylizedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    before = {path: path.stat().st_mtime_ns for path in cache.records.rglob("*")}
    assert cache.build(KEYS) == []
    assert {path: path.stat().st_mtime_ns for path in cache.records.rglob("*")} == before


def test_a_raw_image_removed_since_is_named(cache: StylizedCache, home: Home) -> None:  # noqa: F811
    (home.raw(RGB) / "imagesTr/case_2_0000.png").unlink()
    with pytest.raises(OsasisError, match="must have its images in nnUNet_raw") as caught:
        cache.build([*KEYS, "case_3"])
    assert "case_2" in str(caught.value)


def test_another_fold_waits_for_the_lock_and_finds_the_work_done(
    cache: StylizedCache, capsys: pytest.CaptureFixture
) -> None:
    made: list[list[str]] = []
    thread = Thread(target=lambda: made.append(cache.build([*KEYS, "case_1"])))
    with output_lock(cache.records, "a cache of stylized cases", name="lock"):
        thread.start()
        for _ in range(400):
            if "Waiting: process" in (said := capsys.readouterr().err):
                break
            time.sleep(0.02)
        cache.build(["case_1"])
    thread.join()
    assert made == [[]] and f"process {os.getpid()} on " in said


def test_a_case_that_vanishes_during_a_training_is_said_with_the_remedy(cache: StylizedCache) -> None:
    class Stock:
        identifiers, source_folder, folder_with_segs_from_previous_stage = KEYS, "", None

    dataset = StylizedDataset(Stock(), cache.image_path, probability=1.0, seed=0)
    assert dataset.load_stylized("case_0")[:].shape[0] == 3
    Path(cache.image_path("case_0")).unlink()
    cache.image_path("case_2").write_bytes(b"half")
    for key in ("case_0", "case_2"):
        with pytest.raises(OsasisError, match="Start the training again with --c"):
            dataset.load_stylized(key)
