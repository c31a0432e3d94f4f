"""Several processes that ``accelerate launch`` starts make one stylizer, and it is the one a single process makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pretrain_together import train

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.runtime.distributed import ALONE, Processes, current, joined
from nnunet_osasis.runtime.storage import load_tensors

TESTS = Path(__file__).parents[1]


def launch(
    output: Path, *arguments: str, count: int = 2, script: str = "pretrain_together.py"
) -> subprocess.CompletedProcess:
    """``script`` in ``count`` processes on the CPU, as accelerate starts them."""
    output.mkdir(exist_ok=True)
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(count),
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
        str(TESTS / script), *([str(output)] if script == "pretrain_together.py" else []), *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "PYTHONSAFEPATH": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def curve(output: Path, name: str) -> list[dict]:
    """A log without its times."""
    rows = [json.loads(line) for line in (output / f"{name}.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_same_training(first: Path, second: Path, *, process: int = 0) -> None:
    """Equal loss curves, and weights apart by a small part of what training moved them.

    Adam divides by a gradient's size: where that is nearly zero, its last bits move a weight as far as any other.
    """
    for name in ("pretrain", "adapt"):
        one, other = curve(first, name), curve(second, name)
        assert len(one) == 3 and [row.keys() for row in one] == [row.keys() for row in other]
        for a, b in zip(one, other, strict=True):
            assert a == pytest.approx(b, rel=1e-3, abs=1e-5)
    found = load_tensors(first / "process 0.safetensors", what="weights")
    again = load_tensors(second / f"process {process}.safetensors", what="weights")
    assert found.keys() == again.keys()
    moved = apart(found, load_tensors(first / "start.safetensors", what="weights"))
    assert apart(found, again) < 0.02 * moved


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Euclidean distance of all weights that both have."""
    return torch.cat([(one[name] - value).flatten() for name, value in other.items()]).norm().item()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the whole batch."""
    folder, threads = tmp_path_factory.mktemp("alone"), torch.get_num_threads()
    train(folder)
    torch.set_num_threads(threads)
    return folder


def test_two_processes_train_as_one_with_the_doubled_batch(tmp_path: Path, alone: Path) -> None:
    """5 images in a step are 3 and 2; 1 style and 4 content images are 3 and 2."""
    ended = launch(tmp_path, "none")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("pretrain:   0%") == 1  # one bar
    assert_same_training(alone, tmp_path)
    weights = [load_tensors(tmp_path / f"process {i}.safetensors", what="weights") for i in (0, 1)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_processes(tmp_path: Path, alone: Path) -> None:
    """Two processes are interrupted, three go on; that Ctrl-C reached one of them alone ends both."""
    ended = launch(tmp_path, "interrupt")
    assert ended.returncode != 0
    assert "Interrupted" in ended.stderr
    assert not (tmp_path / "process 0.safetensors").exists()
    ended = launch(tmp_path, "none", "resume", count=3)
    assert ended.returncode == 0, ended.stderr
    assert_same_training(alone, tmp_path, process=2)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "raise"])
def test_a_process_that_fails_ends_the_others(tmp_path: Path, alone: Path, how: str) -> None:
    ended = launch(tmp_path, how)
    assert ended.returncode != 0
    assert ("The test asks for it" in ended.stderr) == (how == "raise")
    assert not (tmp_path / "process 0.safetensors").exists()
    train(tmp_path, resume=True)
    assert_same_training(alone, tmp_path)


def test_a_batch_is_parted_whole_and_evenly() -> None:
    for total, count in ((8, 2), (5, 3), (7, 7)):
        parts = [Processes(i, count).rows(total, what="The batch") for i in range(count)]
        assert [row for part in parts for row in range(total)[part]] == list(range(total))
        sizes = [part.stop - part.start for part in parts]
        assert max(sizes) - min(sizes) <= 1


def test_a_batch_smaller_than_the_number_of_processes_is_refused() -> None:
    with pytest.raises(OsasisError, match="fewer processes"):
        Processes(0, 5).rows(4, what="The batch (--batch-size)")


def test_a_process_alone_needs_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a cluster has set one of the variables, but nobody started it together with others."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.delenv("RANK", raising=False)
    with joined("cpu") as group:
        assert group == ALONE == current()
        assert group.from_main(lambda: 3) == 3
        assert group.any(True) and not group.any(False)
        value = torch.ones(2)
        group.sum([value])
        assert value.tolist() == [1, 1]


def test_processes_cannot_share_a_named_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(OsasisError, match="Leave -device out"), joined("cuda:1"):
        pass
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(OsasisError, match="2 processes for 1 GPUs"), joined("cuda"):
        pass


@pytest.mark.slow
def test_the_whole_command_makes_one_stylizer(tmp_path: Path, image_folder: Path) -> None:
    """Everything between and after the trainings is made once, by the main process, and nobody meets a lock."""
    images, style, made = image_folder / "images", image_folder / "style.png", tmp_path / "made"
    command = [
        "--images", str(images), "--style", str(style), "--output", str(made), "--batch-size", "2", "-device", "cpu",
        "--iterations", "2", "--adapt-iterations", "1", "--calibrator-iterations", "2", "--precision", "fp32",
        "--distil", "local_affine", "--distil-iterations", "2",
    ]  # fmt: skip
    ended = launch(tmp_path / "work", *command, script="command_together.py")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("Stylizer:") == ended.stdout.count("Plan for") == 1
    stylizer = OSASISStylizer.from_pretrained(made)
    assert stylizer.student is not None and stylizer.gate is not None
    assert not list((made / "training").glob("*.safetensors"))
    again = launch(tmp_path / "work", *command, script="command_together.py")
    assert again.returncode != 0
    assert again.stderr.count("must not hold another stylizer") == 1
