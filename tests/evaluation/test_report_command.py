"""``osasis-report`` as a user types it: the report, or one clear message."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from specimens import tiny_preset

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.experiment import methods as stylizers
from nnunet_osasis.evaluation.experiment import runner
from nnunet_osasis.evaluation.experiment.runner import Options
from nnunet_osasis.evaluation.report import report as report_module
from nnunet_osasis.scripts import pretrain_stylizer, report
from nnunet_osasis.training.presets import PRESETS

from .sites import values, write_data, write_site


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command would run, without running it."""
    seen: list[Any] = []

    def instead(experiment: Any, data: Path, options: Options) -> None:
        seen.extend([experiment, data, options])

    def written(
        experiment: Any, outcome: Any, output: Path, *, command: list[str], with_images: bool
    ) -> dict[str, Any]:
        seen.extend([command, with_images])
        return {"verdicts": [{"network": "unet", "target": "b", "title": "No method helped."}]}

    monkeypatch.setattr(runner, "run_experiment", instead)
    monkeypatch.setattr(report_module, "write_report", written)
    return seen


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An experiment file beside its data."""
    write_data(tmp_path)
    path = tmp_path / "e.json"
    path.write_text(json.dumps(values()))
    return path


def test_a_file_is_run_where_it_lies_and_the_verdict_is_said(
    file: Path, asked: list[Any], capsys: pytest.CaptureFixture
) -> None:
    out = file.parent / "out put"
    report.main([str(file), "-o", str(out), "-np", "3", "-device", "cpu,cpu", "--without-images"])
    experiment, data, options, command, with_images = asked
    assert experiment.name == "small" and data == file.parent
    assert options == Options(out, 3, ("cpu", "cpu"), None) and not with_images
    assert command[:4] == ["osasis-report", str(file), "-o", str(out)]
    assert capsys.readouterr().out == f"unet on b: No method helped.\nReport: {out / 'report.html'}\n"


def test_another_data_folder_may_be_named(file: Path, asked: list[Any], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    report.main([str(file), "--data", str(tmp_path / "elsewhere"), "-o", str(tmp_path / "o"), "-device", "cpu"])
    assert asked[1] == tmp_path / "elsewhere" and asked[4] is True


def test_two_folders_are_enough(tmp_path: Path, asked: list[Any]) -> None:
    write_site(tmp_path / "a", (f"p{i // 2}_{i % 2}" for i in range(24)))
    write_site(tmp_path / "b", (f"p{i}_0" for i in range(4)), first=90)
    folders = ["--source", str(tmp_path / "a"), "--target", str(tmp_path / "b"), "-o", str(tmp_path / "o")]
    report.main([*folders, "-device", "cpu", "--groups", r"^p\d+", "--iterations", "7", "--side", "48"])
    experiment = asked[0]
    assert (experiment.budget.iterations, experiment.budget.side, experiment.budget.patch) == (7, 48, 32)
    assert len(experiment.train.include) == 18 and len(experiment.test.include) == 6
    assert experiment.seeds == (0, 1, 2) and experiment.methods[0].kind == "none" and asked[1] == tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["e.json"], "-o"),
        (["-o", "x"], "give an experiment file, or --source and --target"),
        (["--source", "a", "-o", "x"], "give an experiment file, or --source and --target"),
        (["e.json", "--source", "a", "-o", "x"], "not both"),
        (["e.json", "--side", "64", "-o", "x"], "belong into the experiment file"),
        (["e.json", "-np", "0", "-o", "x"], "at least 1"),
        (["e.json", "--epochs", "3", "-o", "x"], "unrecognized arguments: --epochs"),
    ],
)
def test_a_wrong_command_line_is_explained(
    arguments: list[str], message: str, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(file.parent)
    with pytest.raises(SystemExit) as caught:
        report.main(arguments)
    assert caught.value.code == 2 and message in capsys.readouterr().err
    assert not (file.parent / "x").exists()


def broken(file: Path, case: str) -> tuple[list[str], str]:
    """A command line with one thing wrong, and what its message must hold."""
    root = file.parent
    command = [str(file), "-o", str(root / "o"), "-device", "cpu"]
    folders = ["--source", str(root / "a"), "--target", str(root / "c"), "-o", str(root / "o"), "-device", "cpu"]
    return {
        "no file": (["gone.json", *command[1:]], "experiment file must exist"),
        "no data folder": ([*command, "--data", str(root / "gone")], "data folder must exist"),
        "empty data folder": ([*command, "--data", str(root / "a" / "masks")], "image folder must exist"),
        "no target folder": (folders, "folders must exist; got no .*c"),
        "no images folder": ([a if a != str(root / "c") else str(root / "a" / "images") for a in folders], "no folder"),
        "no such device": ([*command[:-1], "abacus"], "-device"),
        "one of two devices": ([*command[:-1], "cpu,abacus"], "abacus"),
        "no stylizer": ([*command, "--from-stylizer", str(root / "a")], "must name a stylizer folder"),
        "rule that fits nothing": (
            ["--source", str(root / "a"), "--target", str(root / "b"), "-o", str(root / "o"), "--groups", "^p"],
            "fit every file name",
        ),
    }[case]


CASES = [
    "no file", "no data folder", "empty data folder", "no target folder", "no images folder", "no such device",
    "one of two devices", "no stylizer", "rule that fits nothing",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_ends_in_one_clear_message(case: str, file: Path) -> None:
    command, message = broken(file, case)
    with pytest.raises(OsasisError, match=message):
        report.main(command)
    assert not (file.parent / "o" / "report.html").exists()


def test_exit_status_and_message_of_the_real_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nnunet_osasis.scripts.report", "gone.json", "-o", "o", "-device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: The experiment file must exist") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_stylizer_is_adapted_compared_and_kept(
    stylizer_folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OSASIS against one control, its autoencoder lent by an earlier stylizer; made in this process, at 32 px."""

    def here(command: list[str], *, check: bool) -> subprocess.CompletedProcess:
        pretrain_stylizer.main(command[5:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setitem(PRESETS, "tiny", tiny_preset())
    monkeypatch.setattr(stylizers, "subprocess", SimpleNamespace(run=here))
    target = [{"name": "b", "set": values()["targets"][1]["set"]}]
    methods = ["none", "reinhard", "osasis"]
    file.write_text(
        json.dumps(
            values(targets=target, methods=methods, stylizer={"adapt_iterations": 1, "calibrator_iterations": 2})
        )
    )
    command = [str(file), "-o", str(file.parent / "o"), "-device", "cpu", "--from-stylizer", str(stylizer_folder)]
    report.main(command)
    results = json.loads((file.parent / "o" / "results.json").read_text())
    assert [entry["method"] for entry in results["summary"]] == methods
    assert [lead["method"] for lead in results["summary"][2]["against"]] == ["reinhard"]
    assert len(results["stylizer_commands"]) == 1 and "--from-stylizer" in results["stylizer_commands"][0]
    folder = next((file.parent / "o" / "stylizers").glob("*/stylizer.json"))
    before = folder.stat().st_mtime_ns
    report.main(command)
    assert folder.stat().st_mtime_ns == before
