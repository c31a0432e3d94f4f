"""A whole experiment, small: every file there, nothing done twice, nothing lost, and the same numbers every time."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.experiment.cells import all_cells
from nnunet_osasis.evaluation.experiment.runner import Options, run_experiment, score_all
from nnunet_osasis.evaluation.experiment.tasks import load_pictures, save_pictures
from nnunet_osasis.evaluation.report.report import rows_csv, write_report

from .conftest import Study
from .sites import experiment


@pytest.fixture
def study(finished_study: Study, tmp_path: Path) -> Study:
    """A copy that a test may damage."""
    shutil.copytree(finished_study.workspace, tmp_path / "work")
    return replace(finished_study, workspace=tmp_path / "work")


def times(workspace: Path) -> dict[str, int]:
    work = [path for part in ("cells", "styled") for path in (workspace / part).iterdir()]
    return {path.name: path.stat().st_mtime_ns for path in work}


def test_the_report_and_its_numbers_are_there(finished_study: Study) -> None:
    root = finished_study.workspace
    page, text = (root / "report.html").read_text(), (root / "report.md").read_text()
    results = json.loads((root / "results.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    for verdict in results["verdicts"]:
        assert verdict["title"] in page and verdict["title"] in text
    assert [(v["network"], v["target"]) for v in results["verdicts"]] == [("unet", "camera"), ("unet", "b")]
    assert "&lt;markup&gt;" in page and "osasis-report e.json" in text
    assert results["experiment_sha256"] == finished_study.spec.sha256
    linked = {line.split("](")[1].split(")")[0] for line in text.splitlines() if line.startswith("![")}
    assert linked and all((root / name).stat().st_size > 1000 for name in linked)
    assert {name.split("/")[1].split("_")[0] for name in linked} == {
        *("differences", "radar", "cases", "scores", "predictions", "styles")
    }
    assert page.count("data:image/png;base64,") == len(linked)
    events = [json.loads(line)["event"] for line in (root / "log.jsonl").read_text().splitlines()]
    assert events[0] == "prepared" and events[-1] == "scored" and events.count("trained") == 21  # one of them longer


class _Balance(HTMLParser):
    """Fails on tags that do not close in order; collects links."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_no_other_file(finished_study: Study) -> None:
    parser = _Balance()
    parser.feed((finished_study.workspace / "report.html").read_text())
    assert parser.open == [] and parser.links
    assert all(str(link).startswith("data:image/png;base64,") for link in parser.links)


def test_every_training_has_a_row_for_every_case_of_its_tests(finished_study: Study) -> None:
    with (finished_study.workspace / "rows.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = {
        ("unet", cell.method.name, cell.target or "", str(cell.seed), test, case)
        for cell in all_cells(finished_study.spec)
        for test in cell.tests
        for case in finished_study.outcome.prepared.tests[test]
    }
    keys = ("network", "method", "style", "seed", "test", "case")
    assert {tuple(row[key] for key in keys) for row in rows} == expected and len(rows) == len(expected)
    assert len(rows) == 2 * (3 * 9 + 3 * 12 + 6)  # three methods see no reference, three do, and the truth has a camera
    assert list(rows[0])[6:] == sorted(finished_study.spec.metrics)
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)


def test_identity_styles_nothing_and_the_others_come_with_their_distance_to_the_truth(finished_study: Study) -> None:
    prepared = finished_study.outcome.prepared
    copies = load_pictures(finished_study.workspace / "styled" / "identity.npz")
    assert all(np.array_equal(copies[n], i) for n, i in zip(prepared.train_names, prepared.train, strict=True))
    found = {entry["method"]: np.mean(entry["psnr"]) for entry in finished_study.outcome.distances}
    assert set(found) == {"none", "histogram_matching", "half", "fda"}
    assert found["half"] > found["none"]  # half the way to the camera's colours is nearer than none of it


def test_a_second_run_trains_nothing_and_finds_the_same_rows(study: Study) -> None:
    before = times(study.workspace)
    outcome = study.run()
    assert times(study.workspace) == before
    assert outcome.rows == study.outcome.rows and outcome.distances == study.outcome.distances


def test_rows_kept_from_an_earlier_run_make_the_same_file(finished_study: Study) -> None:
    outcome, folder = finished_study.outcome, finished_study.workspace / "cells"
    cells = all_cells(finished_study.spec)
    again = score_all(cells, outcome.cells, finished_study.spec, outcome.prepared, folder)
    assert again == outcome.rows
    assert rows_csv(again) == (finished_study.workspace / "rows.csv").read_text()


def test_what_was_lost_is_done_again_to_the_same_bytes(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)  # and one worker: a training has other threads than before
    lost, kept = study.workspace / "cells" / "unet__fda@b__1.npz", times(study.workspace)
    before = lost.read_bytes()
    lost.unlink()
    outcome = study.run(workers=1)
    assert lost.read_bytes() == before
    assert outcome.rows == study.outcome.rows
    after = times(study.workspace)
    assert {name for name in kept if after[name] != kept[name]} <= {lost.name, "unet__fda@b__1.json"}


def test_a_damaged_file_is_named(study: Study) -> None:
    damaged = study.workspace / "cells" / "unet__gin__0.npz"
    whole = damaged.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a file of ours"):
        damaged.write_bytes(content)
        with pytest.raises(OsasisError, match=r"whole.*unet__gin__0\.npz.*Delete it"):
            load_pictures(damaged)
    assert study.run().rows == study.outcome.rows  # what is no archive at all is made anew, to the same bytes
    assert damaged.read_bytes() == whole
    place = 80  # in the first map: the archive looks whole until that map is read, but its hash is another one
    damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    assert study.run().rows == study.outcome.rows
    assert damaged.read_bytes() == whole


def test_without_images_no_picture_of_the_data_is_drawn(study: Study) -> None:
    shutil.rmtree(study.workspace / "pictures")
    write_report(study.spec, study.outcome, study.workspace, command=["x"], with_images=False)
    names = {path.name.split("_")[0] for path in (study.workspace / "pictures").iterdir()}
    assert names == {"differences", "radar", "cases", "scores"}
    assert "predictions_" not in (study.workspace / "report.md").read_text()


def test_a_report_without_images_does_not_leave_those_of_an_earlier_one(study: Study) -> None:
    write_report(study.spec, study.outcome, study.workspace, command=["x"], with_images=False)
    assert not list((study.workspace / "pictures").glob("styles_*"))


def test_a_network_that_cannot_work_is_refused_before_anything_is_trained(
    finished_study: Study, tmp_path: Path
) -> None:
    broken = {"name": "broken", "monai": "BasicUNet", "arguments": {"wings": 2}}
    spec = experiment(networks=["unet", broken], methods=["none"])
    with pytest.raises(OsasisError, match=r"network broken must take its arguments.*wings"):
        run_experiment(spec, finished_study.data, Options(tmp_path, 1), say=lambda _: None)
    assert not (tmp_path / "cells").exists()


def test_a_failing_training_keeps_the_others_and_is_named(study: Study) -> None:
    stuck, lost = (study.workspace / "cells" / f"unet__{name}__0.npz" for name in ("none", "gin"))
    whole = lost.read_bytes()
    for path in (stuck, lost):
        path.unlink()
    stuck.mkdir()  # where the maps should go
    with pytest.raises((OSError, OsasisError)) as caught:
        study.run(workers=1)
    assert stuck.stem in " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert lost.read_bytes() == whole


def test_one_process_at_a_time(study: Study) -> None:
    with FileLock(study.workspace / ".lock"), pytest.raises(OsasisError, match="one process at a time"):
        study.run()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_place_that_holds_something_else_is_left_alone(kind: str, finished_study: Study, tmp_path: Path) -> None:
    place = tmp_path / "mine"
    if kind == "folder":
        place.mkdir()
    precious = place / "thesis.txt" if kind == "folder" else place
    precious.write_text("precious")
    with pytest.raises(OsasisError, match="other content in"):
        run_experiment(finished_study.spec, finished_study.data, Options(place), say=lambda _: None)
    assert precious.read_text() == "precious" and sum(1 for _ in tmp_path.rglob("*")) == (2 if kind == "folder" else 1)


def test_a_picture_may_be_called_file(tmp_path: Path) -> None:
    save_pictures(tmp_path / "p.npz", {"file": np.zeros((1, 2, 2), np.uint8)})
    assert list(load_pictures(tmp_path / "p.npz")) == ["file"]
