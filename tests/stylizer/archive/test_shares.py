"""Shares leave nothing out and nothing twice, and come from the command line, from accelerate, or from both."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.gate.audit import path_in
from nnunet_osasis.runtime.compute import own_device
from nnunet_osasis.runtime.distributed import Launched, Shard, launched
from nnunet_osasis.scripts import stylize as command
from nnunet_osasis.stylizer.archive.record import MANIFEST

STATE = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, count: int) -> None:
    for name, value in zip(STATE, (rank, count, rank), strict=True):
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(("parts", "processes", "length"), [(1, 1, 5), (3, 1, 10), (1, 4, 9), (3, 2, 20), (8, 4, 5)])
def test_parts_and_processes_multiply_and_every_item_is_in_one_share(parts: int, processes: int, length: int) -> None:
    shares = [Shard(k, parts).split(r, processes) for k in range(parts) for r in range(processes)]
    assert Counter(item for share in shares for item in share.select(range(length))) == Counter(range(length))
    assert {share.count for share in shares} == {parts * processes}
    for share in shares:
        assert Shard.named(f"{share.name}.jsonl") == share


def test_shares_that_have_an_item_in_common_are_told_from_others() -> None:
    shares = [Shard(index, count) for count in range(1, 7) for index in range(count)]
    for a, b in product(shares, shares):
        assert a.overlaps(b) == bool(set(a.select(range(60))) & set(b.select(range(60))))


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 2), (0, 0), (5, 1)])
def test_a_part_that_does_not_exist_is_refused(index: int, count: int) -> None:
    with pytest.raises(OsasisError, match="part"):
        Shard(index, count)


@pytest.mark.parametrize("name", ["part-2-of-2.jsonl", "part-0-of-0.jsonl", "part-x-of-2.jsonl", "other.jsonl"])
def test_other_files_are_no_parts(name: str) -> None:
    assert Shard.named(name) is None


def test_the_process_state_is_accelerates_and_only_there_where_it_launched_us(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in STATE:
        monkeypatch.delenv(name, raising=False)
    for name in ("PMI_RANK", "PMI_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "WORLD_SIZE"):
        monkeypatch.setenv(name, "3")  # a scheduler's: its jobs have parts of their own
    assert launched() == Launched()
    as_rank(monkeypatch, 1, 4)
    assert launched() == Launched(1, 4, 1)
    as_rank(monkeypatch, 4, 4)
    with pytest.raises(OsasisError, match="RANK must lie below WORLD_SIZE"):
        launched()


def test_no_process_group_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    as_rank(monkeypatch, 0, 2)
    assert launched().count == 2
    assert not torch.distributed.is_initialized()


def test_every_process_has_a_gpu_of_its_own_unless_a_device_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = [own_device("auto", Launched(rank, 4, rank)) for rank in range(4)]
    assert found == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert own_device("cuda", Launched(1, 2, 1)) == "cuda:1"
    assert own_device("cuda:0", Launched(1, 2, 1)) == "cuda:0" and own_device("cpu", Launched(1, 2, 1)) == "cpu"
    assert own_device("auto", Launched()) == "auto"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert own_device("auto", Launched(1, 2, 1)) == "cpu"


def test_the_command_takes_both_spellings_and_says_how_far_all_parts_are(
    stylizer_folder: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in STATE:
        monkeypatch.delenv(name, raising=False)
    line = ["-i", str(image_folder / "images"), "-o", str(tmp_path / "out"), "--stylizer", str(stylizer_folder)]
    line += ["-device", "cpu"]
    command.main([*line, "--num-parts", "2", "--part-id", "1"])
    out = capsys.readouterr().out
    assert "3 image(s)" in out and "part 1 of 2 is finished; 3 of 6 images are done" in out and "3 as wanted" in out
    as_rank(monkeypatch, 1, 2)
    command.main([*line, "-num_parts", "2", "-part_id", "0"])
    assert "part 2 of 4 is finished; 4 of 6 images are done" in capsys.readouterr().out
    as_rank(monkeypatch, 0, 2)
    command.main([*line, "-num_parts", "2", "-part_id", "0"])
    assert "part 0 of 4 is finished; 6 of 6 images are done" in capsys.readouterr().out
    assert len(path_in(tmp_path / "out").read_text().splitlines()) == 6
    assert (tmp_path / "out/osasis_audit/worst.png").is_file() and (tmp_path / "out" / MANIFEST).is_file()


@pytest.mark.parametrize("more", [["--num-parts", "2"], ["--num-parts", "0", "--part-id", "0"], ["--part-id", "-1"]])
def test_a_part_without_its_number_is_not_guessed(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["-i", "a", "-o", "b", "--stylizer", "c", *more])
    assert "part" in capsys.readouterr().err
