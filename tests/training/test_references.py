"""Stylizers of one reference and of several, with a calibrator and without."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from specimens import draw, second_camera, tiny_adaptation, tiny_calibration, tiny_preset, unit_images

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.maps.base import MeanMap, PixelMap
from nnunet_osasis.maps.moments import MomentMap
from nnunet_osasis.runtime.records import write_sealed_json
from nnunet_osasis.scripts import pretrain_stylizer
from nnunet_osasis.stylizer.names import READOUTS
from nnunet_osasis.training import presets as preset_module
from nnunet_osasis.training.build import BuildConfig, StylizerBuild
from nnunet_osasis.training.read_out import estimate_maps, pair_maps
from nnunet_osasis.training.style_pair import StylePair

DIRECTIONS = ("source_to_target", "target_to_source")
WEIGHTS = "calibrator/diffusion_pytorch_model.safetensors"
ONE, OTHER = second_camera(draw(99)), 255 - second_camera(draw(98)) // 2


def build(output: Path, given: OSASISStylizer, *references: np.ndarray, calibrated: bool = True) -> OSASISStylizer:
    """A stylizer of some references on another's networks: a moment's work."""
    calibration = tiny_calibration() if calibrated else tiny_calibration(iterations=0)
    config = BuildConfig("tiny", tiny_preset(), tiny_adaptation(iterations=1), calibration)
    return StylizerBuild(
        config, unit_images(8), references[0], IntensityRange(), output, more_references=references[1:],
        autoencoder=given.autoencoder, calibrator=given.calibrator if calibrated else None,
    ).run()  # fmt: skip


@pytest.fixture(scope="module")
def builds(stylizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, OSASISStylizer]:
    """Stylizers of one reference, of the other, of both, and of the one without a calibrator."""
    given, root = OSASISStylizer.from_pretrained(stylizer_folder), tmp_path_factory.mktemp("references")
    return {
        "one": build(root / "one", given, ONE),
        "other": build(root / "other", given, OTHER),
        "both": build(root / "both", given, ONE, OTHER),
        "uncalibrated": build(root / "uncalibrated", given, ONE, calibrated=False),
    }


def index_of(folder: Path) -> dict:
    return json.loads((folder / "stylizer.json").read_text())


def json_of(maps: Mapping[str, PixelMap] | Iterable[PixelMap]) -> Any:
    """What maps are equal by."""
    if isinstance(maps, Mapping):
        return {name: one.to_json() for name, one in maps.items()}
    return [one.to_json() for one in maps]


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1, 3, None, "2"])
def test_any_other_format_is_refused_with_the_remedy(stylizer: OSASISStylizer, tmp_path: Path, number: object) -> None:
    folder = stylizer.save_pretrained(tmp_path / "s")
    write_sealed_json(folder / "stylizer.json", index_of(folder) | {"format": number})
    with pytest.raises(OsasisError, match=rf"format 2.*format {number!r}.*version of nnunet-osasis.*make it anew"):
        OSASISStylizer.from_pretrained(folder)


@pytest.mark.parametrize("name", [WEIGHTS, "calibrator/config.json"])
def test_a_damaged_calibrator_is_refused(stylizer: OSASISStylizer, tmp_path: Path, name: str) -> None:
    folder = stylizer.save_pretrained(tmp_path / "s")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    with pytest.raises(OsasisError, match=r"saved with.*calibrator"):
        OSASISStylizer.from_pretrained(folder).load_networks()
    (folder / name).unlink()
    with pytest.raises(OsasisError, match=r"complete.*calibrator"):
        OSASISStylizer.from_pretrained(folder).load_networks()


def test_a_folder_keeps_every_map_the_findings_and_the_calibrator(
    builds: dict[str, OSASISStylizer], tmp_path: Path
) -> None:
    for name, stylizer in builds.items():
        again = OSASISStylizer.from_pretrained(stylizer.save_pretrained(tmp_path / name))
        assert json_of(again.maps) == json_of(stylizer.maps)
        assert again.findings == stylizer.findings
        assert again.card == stylizer.card
        assert again.fingerprint == stylizer.fingerprint
        assert (again.calibrator is None) == (stylizer.calibrator is None)
        if stylizer.calibrator is not None and again.calibrator is not None:
            states = (stylizer.calibrator.state_dict(), again.calibrator.state_dict())
            assert states[0].keys() == states[1].keys()
            assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_stylizer_without_calibrator_replaces_one_with(builds: dict[str, OSASISStylizer], tmp_path: Path) -> None:
    builds["one"].save_pretrained(tmp_path / "s")
    again = OSASISStylizer.from_pretrained(builds["uncalibrated"].save_pretrained(tmp_path / "s"))
    assert again.calibrator is None
    assert "calibrator" not in again.maps


def test_pickling_keeps_the_pixels(builds: dict[str, OSASISStylizer]) -> None:
    images = unit_images(2)
    for stylizer in (builds["both"], builds["uncalibrated"]):
        data = pickle.dumps(stylizer)
        again = pickle.loads(data)  # noqa: S301 (our own bytes)
        assert json_of(again.maps) == json_of(stylizer.maps)
        assert again.fingerprint == stylizer.fingerprint
        assert pickle.dumps(again) == data
        raw = pickle.loads(pickle.dumps(stylizer.configured(readout="raw")))  # noqa: S301 (with the networks it runs)
        for readout in [name for name in READOUTS if name in stylizer.maps] + ["raw"]:
            for direction in DIRECTIONS:
                options = {"readout": readout, "direction": direction}
                copied = raw if readout == "raw" else again
                assert torch.equal(copied.stylize(images, **options), stylizer.stylize(images, **options))


# --- references -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "_inverse"])
@pytest.mark.parametrize("name", ["moments", "pair", "calibrator"])
def test_maps_of_two_references_are_the_means_of_either_alone(
    builds: dict[str, OSASISStylizer], name: str, ending: str
) -> None:
    one, other, both = (builds[key].maps[name + ending] for key in ("one", "other", "both"))
    assert one.to_json() != other.to_json()
    assert both.to_json() == MeanMap((one, other)).to_json()
    images = unit_images(3)
    mean = (one(images).clamp(-1, 1) + other(images).clamp(-1, 1)) / 2
    torch.testing.assert_close(both(images), mean, atol=1e-6, rtol=0)


@pytest.mark.parametrize("ending", ["", "_inverse"])
def test_combined_counts_every_references_independent_estimates_alike(
    builds: dict[str, OSASISStylizer], ending: str
) -> None:
    """The moments and the calibrator of each; the pair shares the errors of the moments and adds nothing."""
    alone = [builds[key].maps for key in ("one", "other")]
    found = builds["both"].maps["combined" + ending]
    assert isinstance(found, MeanMap)
    assert json_of(found.maps) == json_of(maps[name + ending] for name in ("moments", "calibrator") for maps in alone)
    assert 0 <= found.confidence <= 1
    single = alone[0]["combined" + ending]
    assert isinstance(single, MeanMap)
    assert json_of(single.maps) == json_of(alone[0][name + ending] for name in ("moments", "calibrator"))


def test_a_pair_that_was_given_is_the_truth_and_stands_alone(builds: dict[str, OSASISStylizer]) -> None:
    y = builds["one"].reference_unit()
    pair, sources, calibrator = StylePair(y, 0.7 * y + 0.1), unit_images(8), builds["one"].calibrator
    maps, agreement = estimate_maps([y], sources, calibrator, given=[pair])
    assert agreement.estimates == 1
    assert json_of({name: maps[name] for name in maps if "pair" in name}) == json_of(pair_maps([pair]))
    assert maps["combined"].to_json() == MeanMap((maps["pair"],), 1.0).to_json()
    assert maps["combined_inverse"].to_json() == MeanMap((maps["pair_inverse"],), 1.0).to_json()
    made, _ = estimate_maps([y], sources, calibrator)
    assert json_of({name: made[name] for name in made if "combined" not in name}) == json_of(
        {name: maps[name] for name in maps if "combined" not in name and "pair" not in name}
    )
    assert made["combined"].to_json() != maps["combined"].to_json()


def test_the_first_of_several_references_is_the_one_adapted_to(builds: dict[str, OSASISStylizer]) -> None:
    one, both = builds["one"], builds["both"]
    assert np.array_equal(both.reference, one.reference)
    for name in ("decoder", "decoder_bent", "decoder_inverse", "decoder_bent_inverse"):
        assert both.maps[name].to_json() == one.maps[name].to_json()
    assert len(both.card["more_references_sha256"]) == 1
    assert "more_references_sha256" not in one.card
    assert both.card["reference_sha256"] == one.card["reference_sha256"]


def test_findings_are_finite_and_say_how_many_references_there_were(builds: dict[str, OSASISStylizer]) -> None:
    for name, stylizer in builds.items():
        found = stylizer.findings
        assert found["references"] == (2 if name == "both" else 1)
        assert len(found["pair_quality"]) == found["references"]
        assert found["agreement"]["estimates"] == {"both": 4, "uncalibrated": 1}.get(name, 2)
        assert (found["simulated_references"] is None) == (name == "uncalibrated")
        parts = [found["agreement"], *found["pair_quality"], found["simulated_references"] or {}]
        assert all(math.isfinite(value) for part in parts for value in part.values())
        assert json.loads(json.dumps(found)) == found
        combined = stylizer.maps["combined"]
        assert isinstance(combined, MeanMap)
        assert combined.confidence == 1  # disagreement is said, and weakens nothing unless asked to


def test_a_pair_of_real_source_images_compares_statistics_alone(builds: dict[str, OSASISStylizer]) -> None:
    y, sources = builds["one"].reference_unit(), unit_images(8)
    maps = pair_maps([StylePair(y, sources[:3], aligned=False)])
    assert maps["pair"].to_json() == MomentMap.between(sources[:3], y).to_json()
    assert maps["pair_inverse"].to_json() == MomentMap.between(sources[:3], y).inverse().to_json()


def test_without_a_calibrator_all_else_works(builds: dict[str, OSASISStylizer]) -> None:
    stylizer, images = builds["uncalibrated"], unit_images(2)
    assert stylizer.calibrator is None
    combined = stylizer.maps["combined"]
    assert combined.to_json() == MeanMap((stylizer.maps["moments"],), 1.0).to_json()
    for direction in DIRECTIONS:
        assert not torch.equal(stylizer.stylize(images, direction=direction), images)
        with pytest.raises(OsasisError, match=r"no calibrator.*another read-out.*calibrator"):
            stylizer.stylize(images, readout="calibrator", direction=direction)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A short run of ``osasis-pretrain-stylizer`` into ``tmp_path / "s"``."""
    monkeypatch.setitem(preset_module.PRESETS, "tiny", tiny_preset())
    Image.fromarray(np.moveaxis(OTHER, 0, -1)).save(tmp_path / "other.png")
    short = ["--iterations", "2", "--batch-size", "2", "--adapt-iterations", "1", "--precision", "fp32"]
    images, style = str(image_folder / "images"), str(image_folder / "style.png")
    return ["--images", images, "--output", str(tmp_path / "s"), "-device", "cpu", *short, "--style", style]


@pytest.mark.slow
def test_a_calibrator_of_other_images_is_not_taken_over(
    command: list[str], stylizer_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        pretrain_stylizer.main([*command, "--from-stylizer", str(stylizer_folder), "--calibrator-iterations", "2"])
    assert "trained anew" in caplog.text
    assert (tmp_path / "s/training/calibrator.jsonl").is_file()


def test_the_combined_map_is_weakened_on_request(command: list[str], tmp_path: Path) -> None:
    pretrain_stylizer.main([*command, "--hold-back", "--calibrator-iterations", "2"])
    found = OSASISStylizer.from_pretrained(tmp_path / "s")
    assert found.maps["combined"].confidence == pytest.approx(found.findings["agreement"]["confidence"], abs=1e-4)


@pytest.mark.slow
def test_a_stylizer_may_carry_detail_wherever_it_is_used(command: list[str], tmp_path: Path) -> None:
    pretrain_stylizer.main([*command, "--detail", "--calibrator-iterations", "2"])
    found = OSASISStylizer.from_pretrained(tmp_path / "s")
    assert found.config.detail
    assert not found.configured(detail=False).config.detail


@pytest.mark.slow
def test_another_stylizers_calibrator_is_taken_over(command: list[str], tmp_path: Path) -> None:
    lender = tmp_path / "lender"
    own = [str(lender) if part == str(tmp_path / "s") else part for part in command]
    pretrain_stylizer.main([*own, "--calibrator-iterations", "2"])
    pretrain_stylizer.main(
        [*command, str(tmp_path / "other.png"), "--from-stylizer", str(lender), "--pair", "calibrator"]
    )
    assert (tmp_path / "s" / WEIGHTS).read_bytes() == (lender / WEIGHTS).read_bytes()
    assert (tmp_path / "s/training/adapt.jsonl").is_file()
    assert not (tmp_path / "s/training/calibrator.jsonl").exists()
    assert not (tmp_path / "s/training/pretrain.jsonl").exists()
    index = index_of(tmp_path / "s")
    assert index["card"]["calibrator"] == "taken from another stylizer"
    assert index["card"]["adaptation"]["pair"]["maker"] == "calibrator"
    assert index["findings"]["references"] == 2


@pytest.mark.slow
def test_the_command_can_leave_the_calibrator_out(command: list[str], stylizer: OSASISStylizer, tmp_path: Path) -> None:
    given = stylizer.save_pretrained(tmp_path / "given")
    pretrain_stylizer.main([*command, "--from-stylizer", str(given), "--calibrator-iterations", "0"])
    assert not (tmp_path / "s/calibrator").exists()
    assert not (tmp_path / "s/training/calibrator.jsonl").exists()
    assert not (tmp_path / "s/training/pretrain.jsonl").exists()
    found = OSASISStylizer.from_pretrained(tmp_path / "s")
    assert found.stylize_array(draw(0)).shape == (3, 32, 32)
    with pytest.raises(OsasisError, match="no calibrator"):
        found.stylize_array(draw(0), readout="calibrator")


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["{other}", "--pair", "file"], "one reference"),
        (["--calibrator-iterations", "0", "--pair", "calibrator"], "need a calibrator"),
        (["--calibrator-iterations", "0", "--readout", "calibrator"], "need a calibrator"),
        (["{other}x"], "must exist"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(
    command: list[str], tmp_path: Path, more: list[str], word: str
) -> None:
    with pytest.raises(OsasisError, match=word):
        pretrain_stylizer.main([*command, *(part.format(other=tmp_path / "other.png") for part in more)])
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".jsonl", ".safetensors")]
