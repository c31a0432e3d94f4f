"""JSON that anybody may have written: what exceeds the limits is refused, and the rotten lines of a log are named."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nnunet_osasis
from nnunet_osasis import OsasisError
from nnunet_osasis.runtime import records
from nnunet_osasis.runtime.records import (
    append_jsonl,
    append_sealed_line,
    iter_jsonl,
    parse_json,
    read_json,
    read_json_value,
)

ROTTEN = {
    "brackets": "[" * 200_000,
    "levels": '{"a": ' * 100 + "1" + "}" * 100,
    "long number": '{"a": ' + "1" * 5000 + "}",
    "21 digits": '{"a": ' + "1" * 21 + "}",
    "torn": '{"a": 1',
    "no text": "\udcff",
    "half a character": '{"a": "\\ud800"}',
    "NUL": '{"a": 1}\0',
    "UTF-16": '{"a": 1}'.encode("utf-16").decode("utf-8", "surrogateescape"),
}


@pytest.mark.parametrize("name", ROTTEN)
def test_json_beyond_the_limits_is_refused_in_one_message(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(ROTTEN[name], errors="surrogateescape")
    with pytest.raises(OsasisError, match="It must be readable JSON"):
        read_json(tmp_path / "a.json", what="It")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{\r\n"a": 1\r\n}\r\n')
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert read_json(tmp_path / "a.json", what="It") == {"a": 1}
    assert list(iter_jsonl(tmp_path / "a.jsonl")) == [{"a": 1}, {"a": 2}]


def test_a_value_of_another_kind_is_refused_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    assert read_json_value(tmp_path / "a.json", list, what="It") == [1]
    with pytest.raises(OsasisError, match=r"must be a JSON object; got list in .*a\.json"):
        read_json(tmp_path / "a.json", what="It")


def test_one_module_alone_parses_json() -> None:
    """Every other reader would have limits of its own, or none."""
    root = Path(nnunet_osasis.__file__).parents[1]
    readers = {"load", "loads", "model_validate_json", "validate_json", "load_json", "read_csv", "safe_load"}
    found = set()
    for folder in ("nnunet_osasis", "scripts", "trainers", "monai_transforms"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and node.attr in readers:
                    owner = ast.unparse(node.value)
                    if owner in ("json", "yaml", "tomllib", "pd", "pandas") or "json" in node.attr:
                        found.add(path.name)
                if isinstance(node, ast.ImportFrom) and {name.name for name in node.names} & (readers - {"load"}):
                    found.add(path.name)
    assert found == {"records.py"}


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
    assert f"{len(ROTTEN) + 1} line(s)" in caplog.text and "2, 3, 4, 5, 6, ..." in caplog.text


def test_lines_that_are_not_accepted_or_lost_their_seal_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log.jsonl"
    append_sealed_line(log, {"n": 1})
    append_jsonl(log, {"n": 2})
    append_sealed_line(log, {"n": "three"})
    rows = iter_jsonl(log, with_seals=True, accepts=lambda row: isinstance(row["n"], int))
    assert list(rows) == [{"n": 1}] and "left out: 2, 3" in caplog.text
