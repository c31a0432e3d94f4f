"""The cache built by several processes: the same bytes, the same records, and no worker that fails in silence."""

import json
import multiprocessing.context
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from case_makers import Darker, Troubled
from specimens import build_tiny

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.cache import StylizedCache
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.runtime import workers as pool
from nnunet_osasis.runtime.workers import make_cases
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

from .conftest import RGB

KEYS = ["case_0", "case_2", "case_4", "case_5"]


@pytest.fixture
def rgb(home, monkeypatch):
    """Real processes: the fixtures of this folder give nnU-Net threads instead."""
    monkeypatch.setattr(multiprocessing, "get_context", multiprocessing.context._default_context.get_context)
    return NnunetConfiguration.load(RGB, "2d")


def made_by(maker, keys, **options):
    found = {}
    make_cases(maker, keys, found.__setitem__, **options)
    return found


def log_of(cache):
    return [json.loads(line) for line in (cache.records / "log.jsonl").read_text().splitlines()]


def test_two_processes_give_the_bytes_of_one(rgb, tmp_path):
    """With read-outs that run the networks too: sums are taken in one order, however many threads the machine has."""
    build_tiny(tmp_path / "stylizer")
    stylizer = OSASISStylizer.from_pretrained(tmp_path / "stylizer")
    sampler = replace(stylizer.config.sampler, encode_steps=2, decode_steps=2)
    stylizer = stylizer.configured(readout="local_affine", sampler=sampler)
    alone = StylizedCache(rgb, stylizer, None, processes=1)
    alone.build(KEYS)
    before = {path.name: path.read_bytes() for path in alone.folder.iterdir()}
    for path in alone.folder.iterdir():
        path.unlink()
    together = StylizedCache(rgb, stylizer, None, processes=2)
    assert together.build(KEYS) == KEYS
    assert {path.name: path.read_bytes() for path in together.folder.iterdir()} == before
    assert together.build(KEYS) == []
    assert not list(together.folder.glob(".osasis-*"))
    builds = [line for line in log_of(together) if line["event"] == "build"]
    assert [line.get("processes") for line in builds] == [1, 2, None]
    assert builds[1]["megabytes"] > 0


def test_every_worker_takes_one_thread_and_several_cases(rgb):
    found = made_by(Troubled(), KEYS, processes=2)
    assert set(found) == set(KEYS)
    workers = {answer[1] for answer in found.values()}
    assert len(workers) == 2
    assert os.getpid() not in workers
    assert {answer[2] for answer in found.values()} == {1}


def test_a_killed_worker_is_reported_with_its_case_and_the_others_end(rgb):
    with pytest.raises(OsasisError, match=r"during case case_4.*signal 9") as caught:
        made_by(Troubled(dies="case_4"), KEYS, processes=2)
    assert '"processes": 1' in str(caught.value)
    assert not multiprocessing.active_children()


def test_a_workers_error_reaches_the_user_word_for_word(rgb):
    with pytest.raises(OsasisError) as caught:
        made_by(Troubled(fails="case_2"), KEYS, processes=2)
    assert str(caught.value) == "A rule; got case_2. Do this:\n  a command"


def test_a_build_stopped_in_the_middle_goes_on_from_there(rgb):
    """What was finished is neither made again nor lost; Ctrl-C leaves no process behind."""
    cache = StylizedCache(rgb, Darker(), None, processes=2)
    put, count = cache._put_on_record, []

    def interrupted(key, made, bar):
        put(key, made, bar)
        count.append(key)
        if len(count) == 2:
            raise KeyboardInterrupt

    cache._put_on_record = interrupted
    with pytest.raises(KeyboardInterrupt):
        cache.build(KEYS)
    assert not multiprocessing.active_children()
    again = StylizedCache(rgb, Darker(), None, processes=2).build(KEYS)
    assert sorted(again + count) == KEYS
    assert len(again) == 2


@pytest.mark.slow
def test_a_killed_build_takes_its_workers_along_and_goes_on_from_there(rgb):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from case_makers import Darker
from nnunet_osasis.nnunet.cache import StylizedCache
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
StylizedCache(NnunetConfiguration.load({RGB!r}, "2d"), Darker(2.0), None, processes=2).build({KEYS!r})
"""
    records = StylizedCache(rgb, Darker(), None).records / "cases"
    command = subprocess.Popen([sys.executable, "-c", code])
    try:
        while not list(records.glob("*.json")):
            assert command.poll() is None
            time.sleep(0.05)
        workers = [child.pid for child in psutil.Process(command.pid).children(recursive=True)]
    finally:
        command.kill()
        command.wait()
    assert len(workers) >= 2
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(worker) for worker in workers):
        assert time.monotonic() < deadline, "workers outlive their command"
        time.sleep(0.05)
    finished = {path.stem for path in records.glob("*.json")}
    assert set(StylizedCache(rgb, Darker(), None).build(KEYS)) == set(KEYS) - finished


def test_small_jobs_stay_in_this_process(rgb):
    assert {answer[1] for answer in made_by(Troubled(), KEYS).values()} == {os.getpid()}
    assert {answer[1] for answer in made_by(Troubled(), KEYS, processes=1).values()} == {os.getpid()}
    assert {answer[1] for answer in made_by(Troubled(), KEYS[:1], processes=8).values()} == {os.getpid()}


def test_long_jobs_go_on_in_nnunets_usual_number_of_processes(rgb, monkeypatch):
    monkeypatch.setattr(pool, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(pool, "usual_processes", lambda device: 2)
    found = made_by(Troubled(), KEYS)
    assert [answer[1] == os.getpid() for _, answer in sorted(found.items())] == [True, False, False, False]


def test_what_cannot_travel_is_made_here_and_said(rgb, caplog):
    maker = Troubled()
    maker.local = lambda: None
    assert {answer[1] for answer in made_by(maker, KEYS, processes=2).values()} == {os.getpid()}
    assert "one process" in caplog.text


def test_devices_are_handed_out_in_turn(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert pool.worker_devices("cuda", 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert pool.worker_devices("cpu", 2) == ["cpu", "cpu"]
    monkeypatch.setenv("nnUNet_def_n_proc", "64")
    monkeypatch.setattr("os.sched_getaffinity", lambda process: range(32), raising=False)
    assert (pool.usual_processes("cuda"), pool.usual_processes("cpu")) == (4, 32)
