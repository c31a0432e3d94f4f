"""JSON that anybody may have written: what exceeds the limits is refused, and the rotten lines of a log are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.runtime import records
from nnunet_osasis.runtime.records import append_jsonl, append_sealed_line, iter_jsonl, parse_json, read_json

ROTTEN = {
    "brackets": "[" * 200_000,
    "levels": '{"a": ' * 100 + "1" + "}" * 100,
    "long number": '{"a": ' + "1" * 5000 + "}",
    "21 digits": '{"a": ' + "1" * 21 + "}",
    "torn": '{"a": 1',
    "no text": "\udcff",
}


@pytest.mark.parametrize("name", ROTTEN)
def test_json_beyond_the_limits_is_refused_in_one_message(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(ROTTEN[name], errors="surrogateescape")
    with pytest.raises(OsasisError, match="It must be readable JSON"):
        read_json(tmp_path / "a.json", what="It")


def test_what_our_files_hold_is_within_the_limits() -> None:
    assert parse_json(b'{"inode": 18446744073709551615, "low": -9223372036854775808}')["inode"] == 2**64 - 1
    assert parse_json(b"[" * 60 + b"]" * 60)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_FILE_BYTES", 10)
    (tmp_path / "a.json").write_text('{"a": "long"}')
    with pytest.raises(OsasisError, match="at most 10 bytes"):
        read_json(tmp_path / "a.json", what="It")


def test_rotten_lines_of_a_log_are_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(records, "MAX_LINE_BYTES", 1000)
    log = tmp_path / "log.jsonl"
    append_jsonl(log, {"n": 1})
    with log.open("a", errors="surrogateescape") as stream:
        stream.writelines(f"{line}\n" for line in ROTTEN.values())
    append_jsonl(log, {"n": 8, "text": "x" * 2000})
    append_jsonl(log, {"n": 9})
    assert [row["n"] for row in iter_jsonl(log)] == [1, 9]
    assert "7 line(s)" in caplog.text and "2, 3, 4, 5, 6, ..." in caplog.text


def test_lines_that_are_not_accepted_or_lost_their_seal_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log.jsonl"
    append_sealed_line(log, {"n": 1})
    append_jsonl(log, {"n": 2})
    append_sealed_line(log, {"n": "three"})
    rows = iter_jsonl(log, with_seals=True, accepts=lambda row: isinstance(row["n"], int))
    assert list(rows) == [{"n": 1}] and "left out: 2, 3" in caplog.text
