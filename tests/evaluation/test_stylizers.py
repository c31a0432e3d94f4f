"""Stylizers of an experiment: an older one never passes for the one that was asked for."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.experiment import methods as stylizers
from nnunet_osasis.evaluation.experiment import tasks
from nnunet_osasis.evaluation.experiment.config import MethodSpec, StylizerSpec
from nnunet_osasis.evaluation.experiment.data import Prepared, prepare
from nnunet_osasis.stylizer.serialization import INDEX
from nnunet_osasis.training.build import NETWORKS

from ..contracts.golden import golden_stylizer
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


@pytest.mark.parametrize(
    ("readout", "stops"),
    [(None, True), ("moments", True), ("raw", False), ("decoder", False), ("moments+raw", False)],
)
def test_networks_are_trained_only_when_a_method_uses_them(
    readout: str | None, stops: bool, tmp_path: Path, prepared: Prepared, command: Command
) -> None:
    parameters = {} if readout is None else {"readout": readout}
    method = MethodSpec(name="styled", kind="osasis", parameters=parameters)
    study = replace(experiment(), methods=(MethodSpec(name="none", kind="none"), method))
    stylizers.make_stylizers(study, prepared, tmp_path, pretrained=None, device="cpu", say=lambda line: None)
    assert all(("--stop-after" in call) == stops for call in command.calls)
    assert command.calls


def test_two_readouts_of_one_method_restyle_the_images_in_turn(tmp_path: Path, prepared: Prepared) -> None:
    folder = golden_stylizer().save_pretrained(tmp_path / "stylizer")

    def styled(readout: str) -> list[np.ndarray]:
        method = MethodSpec(name="styled", kind="osasis", parameters={"readout": readout, "strength": 1.0})
        output = tmp_path / readout
        tasks.style(method, prepared, "b", folder, "digest", output, "cpu", 1)
        stored = tasks.load_pictures(output.with_suffix(".npz"))
        return [stored[name] for name in prepared.train_names]

    both, first, second = styled("pair+decoder"), styled("pair"), styled("decoder")
    assert all(np.array_equal(a, b) for a, b in zip(both[::2], first[::2], strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(both[1::2], second[1::2], strict=True))
    assert not np.array_equal(first[1], second[1])


@pytest.mark.parametrize("readout", ["raw+nosuch", "raw+raw", "raw+", 3])
def test_a_readout_that_is_unknown_or_named_twice_is_refused(readout: Any) -> None:
    with pytest.raises(OsasisError, match="readout of the method styled must be one of raw"):
        MethodSpec(name="styled", kind="osasis", parameters={"readout": readout})


@pytest.mark.parametrize(("device", "together"), [("cpu", [1] * 5), ("cuda", [2, 1, 2])])
def test_a_gpu_restyles_pictures_of_one_size_together_and_in_their_order(
    device: str, together: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stylizers, "BATCH", 2)
    calls: list[list[np.ndarray]] = []

    def stylize_arrays(arrays: list[np.ndarray], strengths: list[float]) -> list[np.ndarray]:
        calls.append(arrays)
        assert strengths == [0.5] * len(arrays) and len({array.shape for array in arrays}) == 1
        return [array + 1 for array in arrays]

    stylizer = SimpleNamespace(device=torch.device(device), stylize_arrays=stylize_arrays)
    images = [np.full((3, 4, 4 + (i > 2)), i) for i in range(5)]
    found = list(stylizers._restyled(stylizer, images, 0.5))
    assert [len(call) for call in calls] == together
    assert all(np.array_equal(a, b + 1) for a, b in zip(found, images, strict=True))
