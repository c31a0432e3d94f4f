"""``osasis-demo``: phantoms or a user's own folders become an experiment, which is run, reported and not repeated."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.demo import QUICK, DemoSettings, own_experiment, phantom_experiment, render_phantoms
from nnunet_osasis.evaluation.experiment import nnunet as nnunet_engine
from nnunet_osasis.evaluation.experiment.config import experiment_from_json
from nnunet_osasis.evaluation.experiment.data import prepare
from nnunet_osasis.synthetic.phantoms import render_pair

from .sites import save, write_site


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Twelve source and four target images."""
    source = write_site(tmp_path / "a", (f"case{i}" for i in range(12)))
    return source, write_site(tmp_path / "elsewhere" / "b", (f"case{i}" for i in range(4)), first=50)


def own(folders: tuple[Path, Path], **more: object) -> DemoSettings:
    return DemoSettings(output=Path("out"), source=folders[0], target=folders[1], **more)  # type: ignore[arg-type]


def test_phantoms_are_rendered_once_and_are_a_whole_experiment(tmp_path: Path) -> None:
    settings = replace(DemoSettings(output=tmp_path, **QUICK), training_cases=6, test_cases=2, side=32)
    data = render_phantoms(settings, tmp_path / "phantom")
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*.png")}
    experiment = phantom_experiment(settings)
    nnunet_engine.check(experiment)
    assert experiment_from_json(experiment.to_json()) == experiment
    prepared = prepare(experiment, data)
    assert (len(prepared.train), len(prepared.tests["source"]), len(prepared.tests["second_scanner"])) == (6, 2, 2)
    first, second, mask = render_pair(0, 32)
    assert np.array_equal(prepared.train[0], np.moveaxis(first, -1, 0))
    assert np.array_equal(prepared.truths["second_scanner"].pictures[0], np.moveaxis(second, -1, 0))
    assert np.array_equal(prepared.train_masks[0], mask)
    pictures = [
        *prepared.train,
        *prepared.references.values(),
        *(i for t in prepared.tests.values() for i in t.values()),
    ]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures) == 11
    render_phantoms(settings, tmp_path / "phantom")
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*.png")} == before
    fewer = render_phantoms(replace(settings, training_cases=5), tmp_path / "phantom")
    assert len(list((fewer / "source" / "images").iterdir())) == 5


def test_own_folders_are_split_and_the_reference_is_no_test_image(folders: tuple[Path, Path]) -> None:
    data, experiment = own_experiment(own(folders, repeats=3))
    prepared = prepare(experiment, data)
    assert (len(prepared.train), len(prepared.tests["source"]), len(prepared.tests["b"])) == (
        9,
        3,
        3,
    )  # the folder's name
    assert [method.kind for method in experiment.methods] == ["none", "histogram_matching", "pooled_reinhard", "osasis"]
    assert experiment.seeds == (0, 1, 2) and experiment.stylizer.minutes == 2.0
    _, again = own_experiment(own(folders, repeats=3))
    _, other = own_experiment(own(folders, repeats=3, seed=1))
    assert again == experiment and other.test.include != experiment.test.include


def test_a_users_own_in_domain_test_set_leaves_all_source_images_for_training(
    tmp_path: Path, folders: tuple[Path, Path]
) -> None:
    test = write_site(tmp_path / "c", (f"case{i}" for i in range(3)), first=90)
    data, experiment = own_experiment(own(folders, source_test=test))
    prepared = prepare(experiment, data)
    assert (len(prepared.train), len(prepared.tests["source"])) == (12, 3)
    with pytest.raises(OsasisError, match="--source-test"):
        DemoSettings(output=tmp_path, source_test=test)


@pytest.mark.parametrize("value", [1, 2, 100, 255])
def test_masks_of_any_second_value_keep_their_foreground(value: int, folders: tuple[Path, Path]) -> None:
    for path in [path for folder in folders for path in (folder / "masks").iterdir()]:
        save(path, (np.array(Image.open(path)) > 0) * np.uint8(value))
    data, experiment = own_experiment(own(folders))
    assert all(0.05 < mask.mean() < 0.5 for mask in prepare(experiment, data).train_masks)


def test_masks_of_several_classes_are_refused(folders: tuple[Path, Path]) -> None:
    for path in (folders[0] / "masks").iterdir():
        mask = np.array(Image.open(path)) // 255
        mask[:4] = 2
        save(path, mask)
    data, experiment = own_experiment(own(folders))
    with pytest.raises(OsasisError, match=r"3 values"):
        prepare(experiment, data)


def test_what_is_missing_is_named(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    with pytest.raises(OsasisError, match="both --source and --target"):
        DemoSettings(output=tmp_path, source=tmp_path)
    with pytest.raises(OsasisError, match="nowhere"):
        own_experiment(own((folders[0], tmp_path / "nowhere")))
    with pytest.raises(OsasisError, match="at least 6 training"):
        own_experiment(own((folders[1], folders[0])))
    (folders[0] / "masks" / "case3.png").unlink()
    with pytest.raises(OsasisError, match="case3"):
        own_experiment(own(folders))


def test_output_folder_with_other_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    command = [sys.executable, "-m", "nnunet_osasis.scripts.demo", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "other content" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_quick_demo_makes_a_report_and_a_second_run_reuses_everything(tmp_path: Path) -> None:
    """The whole line by the public command. Slow: about three minutes on two idle cores."""
    output = tmp_path / "demo"
    command = [sys.executable, "-m", "nnunet_osasis.scripts.demo", "--quick", "--output", str(output)]
    command += ["-device", "cpu"]
    subprocess.run(command, check=True, timeout=1800)
    results = json.loads((output / "results.json").read_text())
    methods = ["none", "histogram_matching", "pooled_reinhard", "osasis", "truth"]
    assert [entry["method"] for entry in results["summary"]] == methods
    assert len((output / "rows.csv").read_text().splitlines()) == 1 + 5 * 2 * 4
    page, text = (output / "report.html").read_text(), (output / "report.md").read_text()
    assert results["verdicts"][0]["title"] in page and "before_after" in text
    assert "evidence of clinical benefit" in page and "osasis-demo --quick" in page
    assert {entry["method"] for entry in results["distances"]} == set(methods) - {"truth"}
    assert results["styled"][-1]["method"] == "osasis" and sum(results["styled"][-1]["gate"].values()) == 12
    work = [*(output / "nnunet" / "logs").iterdir(), *output.rglob("*.npz"), *output.rglob("stylizer.json")]
    before = {path: path.stat().st_mtime_ns for path in work}
    subprocess.run(command, check=True, timeout=300)
    assert {path: path.stat().st_mtime_ns for path in work} == before
    again = json.loads((output / "results.json").read_text())
    assert {**again, "seconds": 0} == {**results, "seconds": 0}
