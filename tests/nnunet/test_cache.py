"""Stylized copies on disk: whole or absent, reused while true, made anew when not."""

import json
import shutil
import subprocess
import sys
import threading
from types import SimpleNamespace

import blosc2
import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.cache import StylizedCache
from nnunet_osasis.nnunet.cases import open_cases
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.restyle import restyle_with
from nnunet_osasis.runtime.storage import place

from .conftest import RGB, VOLUME, Warmer

KEYS = ["case_0", "case_2", "case_5"]


@pytest.fixture
def rgb(home):
    return NnunetConfiguration.load(RGB, "2d")


def listed(cache):
    return sorted(path.name for path in cache.folder.iterdir())


def test_only_the_requested_cases_are_stylized_and_only_their_images(home, rgb):
    cache = StylizedCache(rgb, Warmer(3), None)
    assert cache.build(KEYS) == KEYS
    assert listed(cache) == [f"{key}.b2nd" for key in KEYS]
    assert cache.folder.parent == home.preprocessed(RGB)
    for key in KEYS:
        expected = open_cases(rgb).preprocessed(key, restyle_with(Warmer(3), None))
        np.testing.assert_array_equal(blosc2.open(str(cache.image_path(key)))[:], expected)


def test_the_original_folder_stays_as_nnunet_left_it(home, rgb):
    folder = home.preprocessed(RGB) / "nnUNetPlans_2d"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    cache = StylizedCache(rgb, Warmer(3), None)
    cache.build(KEYS)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    for path in (folder, cache.folder):
        assert infer_dataset_class(str(path)) is nnUNetDatasetBlosc2
    assert len(nnUNetDatasetBlosc2.get_identifiers(str(folder))) == 6


def test_chunks_and_blocks_are_the_originals(home):
    setup = NnunetConfiguration.load(VOLUME, "3d_fullres")
    cache = StylizedCache(setup, Warmer(2), None)
    cache.build(["case_4"])
    original = blosc2.open(str(home.preprocessed(VOLUME) / "nnUNetPlans_3d_fullres" / "case_4.b2nd"))
    stylized = blosc2.open(str(cache.image_path("case_4")))
    assert (stylized.chunks, stylized.blocks) == (original.chunks, original.blocks)
    assert (stylized.shape, stylized.dtype) == (original.shape, original.dtype)


def test_a_second_run_reuses_everything_and_another_fold_adds_its_own(rgb):
    transfer = Warmer(3)
    StylizedCache(rgb, transfer, None).build(KEYS)
    calls = transfer.calls
    assert StylizedCache(rgb, transfer, None).build(KEYS) == []
    assert transfer.calls == calls
    assert StylizedCache(rgb, transfer, None).build(["case_1", *KEYS]) == ["case_1"]


def test_what_determines_the_result_determines_the_folder(home, rgb):
    folders = {
        StylizedCache(rgb, Warmer(3), None).folder,
        StylizedCache(rgb, Warmer(3, shift=21), None).folder,
        StylizedCache(rgb, Warmer(3), 0.5).folder,
    }
    home.edit_plans(RGB, "2d", normalization_schemes=["ZScoreNormalization"] * 3)
    folders.add(StylizedCache(NnunetConfiguration.load(RGB, "2d"), Warmer(3), None).folder)
    assert len(folders) == 4
    assert StylizedCache(rgb, Warmer(3), None).folder in folders


def test_a_truncated_or_altered_case_is_made_again(rgb):
    cache = StylizedCache(rgb, Warmer(3), None)
    cache.build(KEYS)
    whole = cache.image_path("case_0").read_bytes()
    cache.image_path("case_0").write_bytes(whole[:-100])
    altered = bytearray(cache.image_path("case_2").read_bytes())
    altered[-40] ^= 1
    cache.image_path("case_2").write_bytes(altered)
    cache.image_path("case_5").unlink()
    assert cache.build(KEYS) == KEYS
    assert cache.image_path("case_0").read_bytes() == whole


def test_a_damaged_record_costs_one_case(rgb):
    cache = StylizedCache(rgb, Warmer(3), None)
    cache.build(KEYS)
    (cache.records / "cases" / "case_2.json").write_text('{"sources": 1')
    assert cache.build(KEYS) == ["case_2"]


def test_a_copied_cache_is_recognized_by_its_content(rgb):
    """New time stamps, same bytes: nothing is stylized again."""
    cache = StylizedCache(rgb, Warmer(3), None)
    cache.build(KEYS)
    for key in KEYS:
        cache.image_path(key).write_bytes(cache.image_path(key).read_bytes())
    assert cache.build(KEYS) == []


def test_a_raw_image_changed_after_preprocessing_stops_the_run(home, rgb):
    cache = StylizedCache(rgb, Warmer(3), None)
    cache.build(KEYS)
    Image.fromarray(np.full((64, 56, 3), 99, np.uint8)).save(home.raw(RGB) / "imagesTr" / "case_2_0000.png")
    with pytest.raises(OsasisError, match="case_2") as caught:
        cache.build(KEYS)
    assert "nnUNetv2_preprocess -d 901" in str(caught.value)


def test_a_full_disk_is_said_before_the_work_starts(rgb, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    transfer = Warmer(3)
    cache = StylizedCache(rgb, transfer, None)
    with pytest.raises(OsasisError, match="MB"):
        cache.build(KEYS)
    assert transfer.calls == 0


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("Error while creating")])
def test_a_disk_that_fills_up_leaves_nothing_half_written(rgb, monkeypatch, error):
    cache = StylizedCache(rgb, Warmer(3), None)
    save = nnUNetDatasetBlosc2.save_case

    def fail_later(data, seg, properties, target, **layout):
        save(data, seg, properties, target, **layout)
        if target.endswith("case_2"):
            raise error

    monkeypatch.setattr(nnUNetDatasetBlosc2, "save_case", staticmethod(fail_later))
    with pytest.raises(OsasisError, match="What was finished before is kept"):
        cache.build(KEYS)
    assert listed(cache) == ["case_0.b2nd"]
    assert sorted(path.name for path in cache.records.iterdir()) == ["cache.json", "cases", "lock", "log.jsonl"]
    monkeypatch.undo()


def test_a_file_that_does_not_read_back_is_not_kept(rgb, monkeypatch):
    save = nnUNetDatasetBlosc2.save_case
    lossy = staticmethod(lambda data, *rest, **layout: save(data * 0, *rest, **layout))
    monkeypatch.setattr(nnUNetDatasetBlosc2, "save_case", lossy)
    cache = StylizedCache(rgb, Warmer(3), None)
    with pytest.raises(OsasisError, match="reads back differently"):
        cache.build(KEYS)
    assert listed(cache) == []


def test_leftovers_of_a_killed_run_disappear(rgb):
    cache = StylizedCache(rgb, Warmer(3), None)
    cache.build(KEYS[:1])
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    half = cache.folder / f".osasis-{place()}-{ended.pid}-1-x"
    half.mkdir()
    (half / "case_2.b2nd").write_bytes(b"half")
    assert cache.build(KEYS) == KEYS[1:]
    assert listed(cache) == [f"{key}.b2nd" for key in KEYS]


def test_folds_started_together_share_the_work(rgb):
    transfers = [Warmer(3), Warmer(3)]
    made: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda t=t: made.append(StylizedCache(rgb, t, None).build(KEYS))) for t in transfers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [[], KEYS]


def test_the_log_says_what_was_made_from_what(rgb):
    cache = StylizedCache(rgb, Warmer(3), 0.5)
    cache.build(KEYS)
    lines = [json.loads(line) for line in (cache.records / "log.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["build", "stylized", "stylized", "stylized"]
    assert lines[0]["transfer"] == Warmer(3).fingerprint
    assert lines[1]["case"] == "case_0"
    assert list(lines[1]["sources"]) == ["case_0_0000.png"]
    assert len(lines[1]["result"]) == 64


def test_a_stylizer_for_other_channels_is_refused(rgb):
    with pytest.raises(OsasisError, match=r"3 channel\(s\)"):
        StylizedCache(rgb, Warmer(1), None)


def test_a_transfer_that_returns_nonsense_is_refused(rgb):
    transfer = Warmer(3, shift=float("nan"))
    with pytest.raises(OsasisError, match="finite"):
        StylizedCache(rgb, transfer, None).build(KEYS)
