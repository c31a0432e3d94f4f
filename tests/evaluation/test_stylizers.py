"""Stylizers of an experiment: an older one never passes for the one that was asked for."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.experiment import methods as stylizers
from nnunet_osasis.evaluation.experiment.config import MethodSpec, StylizerSpec
from nnunet_osasis.evaluation.experiment.data import Prepared, prepare
from nnunet_osasis.stylizer.serialization import INDEX
from nnunet_osasis.training.build import NETWORKS

from .sites import experiment, write_data


class Command:
    """Stands for ``osasis-pretrain-stylizer``: notes how it was called, and makes the folder's index or fails."""

    def __init__(self, status: int = 0) -> None:
        self.status, self.calls = status, list[list[str]]()

    def __call__(self, command: list[str], *, check: bool) -> subprocess.CompletedProcess:
        self.calls.append(command)
        folder = Path(command[command.index("--output") + 1])
        if self.status == 0:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / INDEX).write_text("{}")
        return subprocess.CompletedProcess(command, self.status)


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """The small experiment's pictures."""
    return prepare(experiment(), write_data(tmp_path / "data"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, replaced."""
    made = Command()
    monkeypatch.setattr(stylizers.subprocess, "run", made)
    stages = {True: NETWORKS, False: None}
    monkeypatch.setattr(stylizers, "saved_stage", lambda folder, resume: stages[(folder / INDEX).is_file()])
    return made


def make(folder: Path, prepared: Prepared, *, iterations: int) -> list[str]:
    spec = StylizerSpec(iterations=iterations)
    return stylizers.make_stylizer(folder, prepared, "b", spec, losses="full", pretrained=None, device="cpu")


def test_a_stylizer_is_made_once(tmp_path: Path, prepared: Prepared, command: Command) -> None:
    folder = tmp_path / "stylizers" / "b_full"
    assert make(folder, prepared, iterations=5) == make(folder, prepared, iterations=5)
    assert len(command.calls) == 1 and command.calls[0][-1] == "--overwrite"
    assert len(list((folder.parent / "inputs" / "training_images").iterdir())) == len(prepared.train)


def test_other_options_and_a_failed_command_leave_no_older_stylizer(
    tmp_path: Path, prepared: Prepared, command: Command
) -> None:
    folder = tmp_path / "stylizers" / "b_full"
    make(folder, prepared, iterations=5)
    command.status = 1
    with pytest.raises(OsasisError, match="exit status 1 of osasis-pretrain-stylizer for b"):
        make(folder, prepared, iterations=6)
    assert not (folder / INDEX).exists()
    command.status = 0
    make(folder, prepared, iterations=6)  # not taken for finished: gone on with
    assert [call[-1] for call in command.calls] == ["--overwrite", "--overwrite", "--resume"]
    assert (folder / INDEX).is_file()


@pytest.mark.parametrize("status", [130, -15])
def test_an_interrupted_command_interrupts_the_run(
    status: int, tmp_path: Path, prepared: Prepared, command: Command
) -> None:
    command.status = status
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "stylizers" / "b_full", prepared, iterations=5)


@pytest.mark.parametrize(("readout", "stops"), [(None, True), ("moments", True), ("raw", False), ("decoder", False)])
def test_networks_are_trained_only_when_a_method_uses_them(
    readout: str | None, stops: bool, tmp_path: Path, prepared: Prepared, command: Command
) -> None:
    parameters = {} if readout is None else {"readout": readout}
    method = MethodSpec(name="styled", kind="osasis", parameters=parameters)
    study = replace(experiment(), methods=(MethodSpec(name="none", kind="none"), method))
    stylizers.make_stylizers(study, prepared, tmp_path, pretrained=None, device="cpu", say=lambda line: None)
    assert all(("--stop-after" in call) == stops for call in command.calls)
    assert command.calls
