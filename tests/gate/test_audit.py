"""The audit trail: every decision on one line, and what the lines say together."""

import json
from pathlib import Path

import pytest

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.audit import (
    audited_results,
    find_audit,
    path_in,
    read_audit,
    summarize,
    summarize_cases,
    write_audit,
)
from nnunet_osasis.gate.gate import Decision

GOOD = Decision("full", 1.0, 1.0, {"structure_kept": 0.9, "structure_not_invented": 0.95}, {})
WEAK = Decision("weaker", 0.5, 1.0, {"structure_kept": 0.8, "structure_not_invented": 0.9}, {"structure_kept": 0.4})
POOR = {"structure_kept": 0.1, "structure_not_invented": 0.2}
LOST = Decision("original", 0.0, 1.0, POOR, POOR)


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    path = path_in(tmp_path)
    for case, decision in (("b", GOOD), ("a", GOOD), ("c", WEAK), ("d", LOST)):
        write_audit(path, case, decision, stylizer="f00", source_sha256="1", result_sha256="2")
    return path


def test_a_line_has_case_decision_scores_hashes_and_versions(audit: Path) -> None:
    row = json.loads(audit.read_text().splitlines()[0])
    assert row["case"] == "b"
    assert row["decision"] == "full"
    assert row["scores"] == GOOD.scores
    assert {"time", "strength", "wanted_strength", "source_sha256", "result_sha256", "stylizer"} <= set(row)
    assert {"nnunet-osasis", "torch", "numpy"} <= set(row["versions"])


def test_a_case_made_again_counts_once_by_its_last_line(audit: Path) -> None:
    write_audit(audit, "d", GOOD, stylizer="f00")
    rows = read_audit(audit)
    assert [row["case"] for row in rows] == ["a", "b", "c", "d"]
    assert rows[-1]["decision"] == "full"


def test_a_line_torn_by_a_killed_run_is_left_out(audit: Path) -> None:
    with open(audit, "a") as stream:
        stream.write('{"case": "e", "decis')
    write_audit(audit, "f", GOOD)
    assert [row["case"] for row in read_audit(audit)] == ["a", "b", "c", "d", "f"]


def test_the_summary_counts_and_names_the_worst_first(audit: Path) -> None:
    found = summarize(read_audit(audit))
    assert found["decisions"] == {"full": 2, "weaker": 1, "original": 1}
    assert found["failed_scores"] == {"structure_kept": 2, "structure_not_invented": 1}
    assert found["kept_as_original"] == ["d"]
    assert [row["case"] for row in found["worst"]][:2] == ["d", "c"]
    assert found["scores_of_used_images"]["structure_kept"]["lowest"] == 0.8
    assert found["stylizers"] == ["f00"]


def test_former_names_of_scores_are_read(tmp_path: Path) -> None:
    rows = [row.to_json() | {"case": case} for case, row in (("a", GOOD), ("b", LOST))]
    former = json.dumps(rows[1]).replace("structure_kept", "kept").replace("structure_not_invented", "own")
    (tmp_path / "audit.jsonl").write_text(f"{json.dumps(rows[0])}\n{former}\n")
    assert '"kept"' in former and read_audit(tmp_path / "audit.jsonl") == rows
    assert summarize_cases([tmp_path / "audit.jsonl"])["b"].failures == tuple(POOR)


def test_an_audit_is_found_by_its_output_its_cache_or_itself(audit: Path, tmp_path: Path) -> None:
    assert find_audit(tmp_path) == find_audit(audit) == find_audit(audit.parent) == audit
    records = tmp_path / "cache_records"
    write_audit(records / "audit.jsonl", "a", GOOD)
    assert find_audit(tmp_path / "cache") == records / "audit.jsonl"
    with pytest.raises(OsasisError, match="audit trail"):
        find_audit(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "line", ["[1]", '{"case": "a"}', '{"case": "a", "decision": "maybe", "scores": {}, "failures": {}}']
)
def test_a_file_without_a_line_of_an_audit_is_refused(line: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(OsasisError, match="audit"):
        read_audit(path)


@pytest.mark.parametrize(
    "line",
    [
        "[1]", '{"case": "a"}', '{"case": ["a"], "decision": "full", "scores": {}, "failures": {}}',
        '{"case": "a", "decision": "maybe", "scores": {}, "failures": {}}',
        '{"case": "a", "decision": {}, "scores": {}, "failures": {}}',
        '{"case": "a", "decision": "full", "scores": {"structure_kept": NaN}, "failures": {}}',
        '{"case": "a", "decision": "full", "scores": {}, "failures": {"structure_kept": "low"}}',
        '{"case": "a", "decision": "full", "scores": {}, "failures": [1]}',
        '{"case": "a", "decision": "weaker", "wanted_strength": 0, "scores": {}, "failures": {}}',
        '{"case": "a", "decision": "weaker", "strength": "half", "scores": {}, "failures": {}}',
        '{"case": "\\ud800", "decision": "full", "scores": {}, "failures": {}}',
    ],
)  # fmt: skip
def test_other_lines_in_an_audit_are_left_out_and_named(
    line: str, audit: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = read_audit(audit)
    with audit.open("a") as stream:
        stream.write(f"{line}\n")
    assert read_audit(audit) == rows and "left out: 5" in caplog.text
    assert set(summarize_cases([audit])) == set(audited_results(audit)) == {"a", "b", "c", "d"}


@pytest.mark.parametrize("score", ['"x"', "null", "[0.9]", "1" * 5000, "[" * 100_000])
def test_a_line_whose_score_is_no_number_is_left_out_and_named(
    score: str, audit: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = read_audit(audit)
    lines = len(audit.read_text().splitlines())
    with audit.open("a") as stream:
        stream.write(
            f'{{"case": "rotten", "decision": "full", "failures": {{}}, "scores": {{"structure_kept": {score}}}}}\n'
        )
    assert read_audit(audit) == rows
    assert f"left out: {lines + 1}" in caplog.text and str(audit) in caplog.text
