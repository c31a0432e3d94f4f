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
from nnunet_osasis.training.build import BuildConfig, StylizerBuild, stage_plan
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
    maps, networks = stage_plan(build)[1:]
    assert "calibrator (4 steps)" in maps and "about a minute" in maps
    assert "pretraining (6 steps" in networks and "student" in networks
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
