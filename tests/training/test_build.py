"""A stylizer is made in two stages: it can be used after the first, and the second leaves its default as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from specimens import (
    build_tiny,
    draw,
    second_camera,
    tiny_adaptation,
    tiny_calibration,
    tiny_distillation,
    tiny_preset,
    unit_images,
)

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.maps.base import MeanMap
from nnunet_osasis.runtime.records import read_jsonl
from nnunet_osasis.scripts import pretrain_stylizer, stylize
from nnunet_osasis.training import presets as preset_module
from nnunet_osasis.training.build import BuildConfig, StylizerBuild, stage_plan, times
from nnunet_osasis.training.build import settings as build_settings
from nnunet_osasis.training.build import stages as build_stages

NETWORKS = ("autoencoder", "decoder", "spn")


def make(output: Path, **changes: object) -> StylizerBuild:
    """The specimens' build, with other settings."""
    config = BuildConfig("tiny", tiny_preset(), tiny_adaptation(), tiny_calibration(), distil=tiny_distillation())
    counterpart = changes.pop("counterpart", None)
    return StylizerBuild(
        replace(config, **changes), unit_images(8), second_camera(draw(99)), IntensityRange(), output,
        counterpart=counterpart,
    )  # fmt: skip


def files(folder: Path) -> dict[str, bytes]:
    """All files of a stylizer, without logs and pictures."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "training" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.name != ".osasis.lock"}


@pytest.fixture
def command(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A short run of ``osasis-pretrain-stylizer`` into ``tmp_path / "s"``."""
    monkeypatch.setitem(preset_module.PRESETS, "tiny", tiny_preset())
    short = ["--iterations", "2", "--batch-size", "2", "--adapt-iterations", "1", "--calibrator-iterations", "2"]
    data = ["--images", str(image_folder / "images"), "--style", str(image_folder / "style.png")]
    return [*data, "--output", str(tmp_path / "s"), *short, "--precision", "fp32", "-device", "cpu"]


def test_after_the_maps_the_command_restyles_a_folder_with_the_gate_and_resume_adds_the_networks(
    command: list[str], image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pretrain_stylizer.main([*command, "--stop-after", "maps"])
    said = capsys.readouterr().out
    usage = next(line for line in said.splitlines() if line.strip().startswith("osasis-stylize"))
    assert said.index("Plan") < said.index("can be used now") < said.index(usage)
    assert "--resume" in said
    assert not any((tmp_path / "s" / name).exists() for name in NETWORKS)
    options = usage.split()[1:]
    options[options.index("-o") + 1] = str(tmp_path / "restyled")
    stylize.main([*options, "-device", "cpu"])
    for path in (image_folder / "images").iterdir():
        assert not np.array_equal(np.array(Image.open(path)), np.array(Image.open(tmp_path / "restyled" / path.name)))
    decisions = read_jsonl(tmp_path / "restyled/osasis_audit/audit.jsonl")
    assert len(decisions) == 6
    early = OSASISStylizer.from_pretrained(tmp_path / "s")
    with pytest.raises(OsasisError, match="--resume"):
        pretrain_stylizer.main(command)
    with pytest.raises(OsasisError, match="--resume"):
        early.stylize(unit_images(1), readout="raw")
    pretrain_stylizer.main([*command, "--resume"])
    late = OSASISStylizer.from_pretrained(tmp_path / "s")
    assert late.has_networks and late.fingerprint == early.fingerprint
    assert all(late.maps[name].to_json() == change.to_json() for name, change in early.maps.items())
    assert torch.equal(late.stylize(unit_images(2)), early.stylize(unit_images(2)))
    assert late.gate == early.gate
    assert {"pair", "decoder", "decoder_bent"} <= late.maps.keys() - early.maps.keys()


def test_a_build_in_two_runs_gives_the_bytes_of_one(tmp_path: Path, stylizer_folder: Path) -> None:
    assert not make(tmp_path / "s").run(stop_after="maps").has_networks
    build_tiny(tmp_path / "s", resume=True)
    assert files(tmp_path / "s") == files(stylizer_folder)
    assert not list((tmp_path / "s").rglob("calibrator.safetensors"))


class Stop(Exception):
    """Stands for a power cut."""


FIRST_STAGE = ("train_calibrator", "estimate_maps", "suitability")
SECOND_STAGE = ("pretrain", "make_style_pair", "decoder_maps", "distil")


@pytest.mark.parametrize("where", [*FIRST_STAGE, *SECOND_STAGE])
def test_a_build_killed_in_either_stage_resumes_to_the_same_bytes(
    tmp_path: Path, stylizer_folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The power fails right after a part of the work."""
    real = getattr(build_stages, where)

    def cut(*args: object, **options: object) -> None:
        real(*args, **options)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(build_stages, where, cut)
        with pytest.raises(Stop):
            build_tiny(tmp_path / "s")
    assert (tmp_path / "s/stylizer.json").exists() == (where in SECOND_STAGE)
    build_tiny(tmp_path / "s", resume=True)
    assert files(tmp_path / "s") == files(stylizer_folder)


def test_a_read_out_that_needs_networks_waits_for_them_and_combined_stands_in(tmp_path: Path) -> None:
    used: list[str] = []
    stylizer = make(tmp_path / "s", readout="raw").run(on_maps=lambda one: used.append(one.config.readout))
    assert used == ["combined"]
    assert stylizer.config.readout == "raw"
    assert stylizer.gate is not None and stylizer.gate.round_trip


def test_a_photographed_pair_is_the_default_of_the_first_stage_already(tmp_path: Path) -> None:
    adapt = tiny_adaptation(pair=replace(tiny_adaptation().pair, maker="file"))
    made: list[OSASISStylizer] = []
    late = make(tmp_path / "s", adapt=adapt, counterpart=unit_images(1, first=99)).run(on_maps=made.append)
    early = made[0]
    assert early.maps["combined"].to_json() == MeanMap((early.maps["pair"],), 1.0).to_json()
    assert late.fingerprint == early.fingerprint
    assert late.maps["pair"].to_json() == early.maps["pair"].to_json()
    with pytest.raises(OsasisError, match="another stylizer"):  # another photograph is another stylizer
        make(tmp_path / "s", adapt=adapt, counterpart=unit_images(1, first=98)).run(resume=True)


def test_the_plan_names_the_stages_that_will_run(tmp_path: Path) -> None:
    build = make(tmp_path / "s")
    maps, pretraining, networks = stage_plan(build)[1:]
    assert "calibrator (4 steps)" in maps and "about a minute" in maps
    assert "pretraining (6 steps" in pretraining and "student" in networks
    assert stage_plan(build, stop_after="maps")[1:] == [maps]


def test_an_interrupted_build_goes_on_under_other_versions_and_with_other_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "s").run(stop_after="maps")
    monkeypatch.setattr(build_settings.platform, "python_version", lambda: "3.99.0")
    preset = tiny_preset(iterations=3)
    stylizer = make(tmp_path / "s", preset=preset).run(resume=True)
    assert stylizer.has_networks
    assert stylizer.card["python"] == "3.99.0"
    assert stylizer.card["pretraining"]["iterations"] == 3
    with pytest.raises(OsasisError, match="calibrator"):
        make(tmp_path / "s", calibrator=tiny_calibration(iterations=5)).run(resume=True)


def test_a_stylizer_that_serves_another_readout_meanwhile_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path / "s", readout="raw").run(stop_after="maps")
    caplog.clear()
    assert OSASISStylizer.from_pretrained(tmp_path / "s").config.readout == "combined"
    assert "ordered with the read-out raw" in caplog.text


@pytest.fixture
def unbounded(command: list[str]) -> list[str]:
    """The short run without a number of pretraining steps."""
    return [word for i, word in enumerate(command) if "--iterations" not in (word, command[i - 1])]


def test_minutes_bound_the_whole_command_and_are_remembered(
    unbounded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A step seems to take 0.2 s: what is left of a minute after the maps, and for the rest, holds less than 150."""
    monkeypatch.setattr(times, "seconds_per_step", lambda *_, **__: 0.2)
    pretrain_stylizer.main([*unbounded, "--minutes", "1"])
    said = capsys.readouterr().out
    assert said.index("Plan") < said.index("All of it in 1 minutes") < said.index("steps fit into")
    steps = OSASISStylizer.from_pretrained(tmp_path / "s").card["pretraining"]["iterations"]
    assert 1 <= steps < 150 and f"Pretraining: {steps} steps" in said and said.count("can be used now") == 1
    pretrain_stylizer.main([*unbounded, "--minutes", "3", "--resume"])  # finished: nothing is settled anew
    assert OSASISStylizer.from_pretrained(tmp_path / "s").card["pretraining"]["iterations"] == steps


def test_too_few_minutes_end_with_usable_maps_and_a_remedy_that_works(
    unbounded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(times, "seconds_per_step", lambda *_, **__: 0.1)
    with pytest.raises(OsasisError, match=r"--minutes must leave time.*--resume and --minutes") as caught:
        pretrain_stylizer.main([*unbounded, "--minutes", "0.01"])
    assert not OSASISStylizer.from_pretrained(tmp_path / "s").has_networks
    minutes = str(caught.value).split("--minutes ")[2].split(" ")[0]
    pretrain_stylizer.main([*unbounded, "--resume", "--minutes", minutes])
    assert OSASISStylizer.from_pretrained(tmp_path / "s").has_networks


def test_the_plan_times_every_stage_of_a_long_run(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    build = make(tmp_path / "s", preset=replace(tiny_preset(iterations=7200), rough_time="ages"))
    plan = stage_plan(build, times=times.StageTimes(0.5, 3600.0, 250.0))
    assert "1. maps" in plan[1] and "2. pretraining (7200 steps of 4 images): about 60 min here." in plan[2]
    assert "3. style pair, adaptation" in plan[3] and plan[3].endswith("about 4 min.")
    assert "ages" in stage_plan(build)[2]


def test_minutes_and_steps_exclude_each_other(command: list[str], capsys: pytest.CaptureFixture) -> None:
    for more in (["--minutes", "3"], ["--minutes", "3", "--stop-after", "maps"]):
        with pytest.raises(SystemExit):
            pretrain_stylizer.main([*command, *more])
        assert "--minutes" in capsys.readouterr().err


def test_resume_names_the_setting_that_differs_before_it_measures(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(Exception):
        pass

    def cut(*_: object, **__: object) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(build_stages, "make_style_pair", cut)  # after pretraining
        with pytest.raises(Cut):
            pretrain_stylizer.main(command)
    monkeypatch.setattr(pretrain_stylizer, "FEW_STEPS", 0)
    monkeypatch.setattr(times, "seconds_per_step", cut)
    with pytest.raises(OsasisError, match=r"pretraining\.batch_size 2 there and 3 now"):
        pretrain_stylizer.main([*command, "--resume", "--batch-size", "3"])
    with pytest.raises(Cut):  # the adaptation has not begun: it may have other settings, and is timed
        pretrain_stylizer.main([*command, "--resume", "--adapt-learning-rate", "1e-4"])
    monkeypatch.setattr(pretrain_stylizer, "FEW_STEPS", 100)
    pretrain_stylizer.main([*command, "--resume"])
    assert OSASISStylizer.from_pretrained(tmp_path / "s").has_networks
    with pytest.raises(OsasisError, match=r"adaptation\.iterations 1 there and 2 now"):
        pretrain_stylizer.main([*command, "--resume", "--adapt-iterations", "2"])
