"""The caches on this machine: listed with who can use them, deleted only when nobody does, one for one strength."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet import cache as module
from nnunet_osasis.nnunet.cache import StylizedCache
from nnunet_osasis.nnunet.caches import delete_cache, find_caches
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.scripts import info

from .conftest import RGB, Warmer

KEYS = ["case_0", "case_2"]


@pytest.fixture
def built(home, monkeypatch):
    cache = StylizedCache(NnunetConfiguration.load(RGB, "2d"), Warmer(3), None)
    cache.build(KEYS)
    monkeypatch.setenv("nnUNet_preprocessed", str(home.preprocessed(RGB).parent))
    yield cache
    module._held.close()


def test_a_cache_is_listed_with_its_size_and_who_can_use_it(built, capsys):
    stylizers = {Warmer(3).fingerprint: [Path("/data/stylizer")]}
    (found,) = find_caches(built.folder.parents[1], stylizers)
    assert (found.folder, found.configuration, found.cases) == (str(built.folder), "nnUNetPlans_2d", 2)
    assert found.usable_with == ["/data/stylizer"] and found.megabytes > 0 and found.last_used.startswith("20")
    assert find_caches(built.folder.parents[1], {})[0].usable_with == []
    info.main(["--caches"])
    assert json.loads(capsys.readouterr().out)[0]["transfer"] == Warmer(3).fingerprint


def test_what_a_training_uses_stays_whoever_asks(built):
    info.main(["--caches", "--prune", "--yes"])
    with pytest.raises(OsasisError, match="in use"):
        delete_cache(built.folder)
    assert len(list(built.folder.iterdir())) == 2


def test_pruning_asks_and_deletes_all_of_a_cache(built, monkeypatch, capsys):
    module._held.close()
    monkeypatch.setattr("sys.stdin.readline", lambda: "no\n", raising=False)
    info.main(["--caches", "--prune"])
    assert built.folder.is_dir() and str(built.folder) in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.readline", lambda: "y\n", raising=False)
    info.main(["--caches", "--prune"])
    assert not built.folder.exists() and not built.records.exists()
    assert built.build(KEYS) == KEYS


def test_the_transfers_own_strength_and_no_strength_share_a_cache(home):
    setup = NnunetConfiguration.load(RGB, "2d")
    folders = {strength: StylizedCache(setup, Warmer(3), strength).folder for strength in (None, 1.0, 0.5)}
    assert folders[None] == folders[1.0] != folders[0.5]
