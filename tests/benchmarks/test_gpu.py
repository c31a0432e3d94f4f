"""The GPU benchmark runs at its smallest scale, so that it works the first time a GPU is at hand."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="an installed package has no benchmarks")
STEPS = ("pixels", "speed", "train", "nnunet", "study")


def run(out: Path, *options: str, **environment: str) -> tuple[int, dict[str, Any], str]:
    """The command at its smallest scale: exit status, results, output."""
    command = [sys.executable, "-W", "ignore", str(FOLDER / "run.py"), "--tiny", "--device", "cpu", "--out", str(out)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=env, check=False)
    assert (out / "results.json").is_file(), done.stderr[-2000:]
    return done.returncode, json.loads((out / "results.json").read_text()), done.stdout + done.stderr


def entries(results: dict[str, Any], step: str) -> dict[str, Any]:
    """What a finished step has found."""
    found = next(one for name, one in results["steps"].items() if name.endswith(f".{step}"))
    assert found["status"] == "done", found
    return {name: one for name, one in found["entries"].items() if isinstance(one, dict) and "took_s" in one}


def test_pixels_are_compared_and_finished_steps_are_kept(tmp_path: Path) -> None:
    status, results, text = run(tmp_path, "--steps", "pixels")
    found = entries(results, "pixels")
    assert status == 0 and "every read-out on the device" in text.split("Results:")[0]
    assert {"raw", "combined", "student"} <= set(found) and len(found) == 11
    assert all(one["fp32"]["largest"] == 0 for one in found.values())  # the device is the CPU itself
    assert 0 < found["raw"]["bf16"]["largest"] < 30 and "bf16" not in found["combined"]
    before = (tmp_path / "steps" / "measures.pixels.json").stat().st_mtime_ns
    status, again, text = run(tmp_path, "--steps", "pixels")
    assert status == 0 and again["steps"] == results["steps"] and ": done" in text
    assert (tmp_path / "steps" / "measures.pixels.json").stat().st_mtime_ns == before


def test_a_step_ends_with_its_time_and_the_next_goes_on(tmp_path: Path) -> None:
    status, results, _ = run(tmp_path, "--steps", "speed", "train", "--minutes", "0.05")
    assert status == 0
    assert {step["status"] for step in results["steps"].values()} <= {"stopped", "skipped"}
    assert all(step["why"] for step in results["steps"].values()) and len(results["steps"]) == 2


def in_one_process(script: str, tmp_path: Path) -> Any:
    """Run Python in the scripts' own surroundings, and read the JSON it prints last."""
    head = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import run, json, time; from pathlib import Path\n"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    env |= {f"nnUNet_{name}": str(tmp_path / name) for name in ("raw", "preprocessed", "results")}
    env |= {"nnUNet_compile": "f", "nnUNet_n_proc_DA": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", head + script], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


BOOK = """
from book import Book
def book(name, seconds=600):
    return Book(Path({tmp!r}) / f"{{name}}.json", "cpu", True, time.monotonic() + seconds, None, Path({tmp!r}))
"""


def test_every_measuring_step_finds_all_of_its_entries(tmp_path: Path) -> None:
    script = BOOK.format(tmp=str(tmp_path)) + (
        "import measures, torch\n"
        "torch.set_num_threads(1)\n"
        "books = {name: book(name) for name in ('speed', 'train', 'nnunet')}\n"
        "for name, one in books.items(): getattr(measures, name)(one)\n"
        "print(json.dumps({name: one.entries for name, one in books.items()}))"
    )
    found = in_one_process(script, tmp_path)
    wrong = [one for part in found.values() for one in part.values() if isinstance(one, dict) and "error" in one]
    assert not wrong
    assert {"map, 32 px, fp32, batch 1", "student, 32 px, fp32, batch 2", "networks, 32 px, bf16, batch 1"} <= set(
        found["speed"]
    )
    assert any("compiled" in name for name in found["speed"])
    assert all(one["images_per_s"] > 0 for one in found["speed"].values())
    assert found["train"]["adaptation, default"]["minutes_extrapolated"] > 0
    assert set(found["nnunet"]) == {"goal", "2d", "3d_fullres"}
    assert set(found["nnunet"]["3d_fullres"]["ratio_to_stock"]) == {
        *("stock", "cached", "on_the_fly", "on_the_fly, student"),
    }


def test_a_failing_entry_is_recorded_and_tried_again(tmp_path: Path) -> None:
    script = BOOK.format(tmp=str(tmp_path)) + (
        "one = book('one')\n"
        "def fail(): raise ValueError('too large')\n"
        "assert one.once('a', fail) is None and one.once('b', lambda: {'x': 1})['x'] == 1\n"
        "assert one.once('c', lambda: {'x': 2}, needs=1e6) is None\n"
        "two = book('one')\n"
        "before = dict(two.entries)\n"
        "two.once('a', lambda: {'x': 3}), two.once('b', fail), two.once('c', lambda: {'x': 4})\n"
        "print(json.dumps([before, two.entries]))"
    )
    before, after = in_one_process(script, tmp_path)
    assert before["a"]["error"] == "ValueError: too large" and "in fail" in before["a"]["traceback"]
    assert before["c"]["skipped"] == "no time left"
    assert [after[name]["x"] for name in "abc"] == [3, 1, 4]


def test_the_studys_experiments_are_ones_that_the_harness_takes(tmp_path: Path) -> None:
    script = (
        "import study\n"
        "settings = {'preset': 'small', 'side': 128, 'pretraining_minutes': 4.0, 'iterations': 240, 'batch_size': 16}\n"
        "made = [study.experiment_of(t, 5, settings, None, tiny=False) for t in ('colondb', 'camera')]\n"
        "print(json.dumps([one.to_json() for one in made]))"
    )
    colondb, camera = in_one_process(script, tmp_path)
    names = ["none", "colour_jitter", "pooled_reinhard", "maps", "decoder", "both"]
    assert [method["name"] for method in colondb["methods"]] == [*names, "decoder_paper"]
    assert [method["name"] for method in camera["methods"]] == [*names, "truth"]
    assert len(colondb["seeds"]) == 5 and colondb["stylizer"]["minutes"] == 4.0
    assert colondb["train"]["include"] == ["1-408"] and camera["targets"][0]["reference_pool"]["include"] == ["409-503"]


def test_results_become_tables(tmp_path: Path) -> None:
    sys_path = str(FOLDER)
    interval = {"mean": 0.5, "low": 0.4, "high": 0.6}
    study = {
        "took_s": 1, "verdicts": [{"title": "Nothing helped", "sentences": []}], "worth": {"decoder - maps": interval},
        "methods": {"none": dict.fromkeys(("target", "source", "difference"), interval) | {"gap_closed": None}},
    }  # fmt: skip
    speed = {"map, 256 px, fp32, batch 1": {"took_s": 1, "images_per_s": 5123.0, "peak_gib": 0.25}}
    results = {
        "settings": {"tiny": False}, "machine": {"cuda": "H100", "cores": 16, "versions": {"torch": "2.11"}},
        "steps": {
            "measures.speed": {"title": "images a second", "status": "stopped", "why": "late", "entries": speed},
            "study.study": {"title": "a real study", "status": "done", "entries": {"colondb": study}},
        },
    }  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps(results))
    spec = importlib.util.spec_from_file_location("gpu_table", f"{sys_path}/table.py")
    assert spec is not None and spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    text = table.tables(tmp_path / "results.json")
    assert "Stopped: late." in text and "| 5123" in text and "Nothing helped" in text
    assert "| decoder - maps | 0.500 (0.400 to 0.600) |" in text


def test_packed_images_keep_their_pairs_and_masks_stay_masks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for place in ("polyp/clinicdb", "polyp/colondb"):
        for kind in ("images", "masks"):
            (tmp_path / place / kind).mkdir(parents=True)
        picture = rng.integers(0, 255, (180, 240, 3)).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / place / "images" / "1.png")
        Image.fromarray((picture[..., 0] > 200).astype(np.uint8) * 255).save(tmp_path / place / "masks" / "1.png")
    script = (
        f"import pack; root = Path({str(tmp_path)!r})\nprint(pack.pack_images(root, 'polyp/colondb', root / 'p', 128))"
    )
    assert in_one_process(script, tmp_path) == 1
    place = tmp_path / "p" / "polyp" / "colondb"
    with Image.open(place / "images" / "1.jpg") as image, Image.open(place / "masks" / "1.png") as mask:
        assert image.size == mask.size == (128, 96)
        assert set(np.unique(np.asarray(mask))) <= {0, 255}


@pytest.mark.slow
def test_the_study_runs_through_the_harness(tmp_path: Path) -> None:
    status, results, _ = run(tmp_path, "--steps", "study", "--minutes", "30")
    found = entries(results, "study")
    assert status == 0 and set(found) == {"colondb, 1 trainings each", "camera, 1 trainings each"}
    assert found["camera, 1 trainings each"]["distances_to_truth"].keys() >= {"none", "maps", "decoder", "both"}
    assert (tmp_path / "work" / "study" / "colondb" / "report.md").is_file()
