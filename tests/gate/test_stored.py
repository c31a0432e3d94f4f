"""The gate judges what is stored, at every door, and no stylizer's folder can talk it out of that."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from specimens import draw

from monai_transforms import OSASISStylize
from nnunet_osasis.gate import GateThresholds, StructureGate, score_structure
from nnunet_osasis.gate.audit import path_in, read_audit
from nnunet_osasis.gate.calibration import thresholds_for
from nnunet_osasis.gate.scores import StructureScores
from nnunet_osasis.gate.thresholds import FLOORS
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.stylizer.archive.run import stylize_folder
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

BYTES = IntensityRange("fixed", 0, 255)
GATE = StructureGate(GateThresholds({}), BYTES)


def faint(array: np.ndarray) -> np.ndarray:
    """All of the structure in a few levels: there as long as nobody rounds."""
    return 0.03 * array.astype(np.float32)


@pytest.fixture
def fading(stylizer: OSASISStylizer, monkeypatch: pytest.MonkeyPatch) -> OSASISStylizer:
    """A stylizer that makes everything faint."""
    monkeypatch.setattr(OSASISStylizer, "stylize_array", lambda self, array, **options: faint(array))
    monkeypatch.setattr(
        OSASISStylizer, "stylize_arrays", lambda self, arrays, amounts, **options: [faint(array) for array in arrays]
    )
    return stylizer


@pytest.mark.parametrize(
    ("dtype", "outcome"), [(np.uint8, "weaker"), (np.int16, "weaker"), (np.float32, "full"), (np.float64, "full")]
)
def test_what_rounding_loses_is_lost_for_the_gate_as_well(dtype: type, outcome: str) -> None:
    source = draw(3, size=64).astype(dtype)
    result = GATE(source, 0.4 * faint(source), 1.0)
    assert result.decision.outcome == outcome
    assert result.image.dtype == dtype
    if outcome == "weaker":
        assert result.decision.failures
        assert np.unique(result.image).size > 20


def test_clipping_to_the_type_is_seen() -> None:
    source = draw(3, size=64)
    bright = source.astype(np.float32) + 180
    assert GATE(source.astype(np.float32), bright, 1.0, stored=lambda image: image).image.max() > 255
    result = GATE(source, bright, 1.0)
    assert result.decision.outcome == "weaker"
    assert "structure_kept" in result.decision.failures


@pytest.mark.parametrize("direction", ["source_to_target", "target_to_source"])
def test_a_folder_of_bytes_never_holds_what_rounding_destroyed(
    direction: str, fading: OSASISStylizer, image_folder: Path, tmp_path: Path
) -> None:
    stylize_folder(fading, image_folder / "images", tmp_path, direction=direction)
    for row in read_audit(path_in(tmp_path)):
        assert row["decision"] != "full"
        assert len(np.unique(np.array(Image.open(tmp_path / row["case"])))) > 20


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.bfloat16, torch.float16])
def test_transforms_judge_the_type_they_hand_out(dtype: torch.dtype, fading: OSASISStylizer, tmp_path: Path) -> None:
    image = torch.from_numpy(draw(3, size=64) * 0.5 + 120).to(dtype)
    transform = OSASISStylize(fading, audit=tmp_path / "audit.jsonl")
    result = transform(image)
    assert result.dtype == dtype
    row = read_audit(tmp_path / "audit.jsonl")[0]
    scores = score_structure(*((part.float().numpy() / 127.5 - 1).astype(np.float32) for part in (image, result)))
    if row["decision"] != "original":
        assert scores.values() == row["scores"]
    assert row["decision"] == ("full" if dtype in (torch.float16, torch.bfloat16) else "weaker")


@pytest.mark.parametrize("scores", [{}, dict.fromkeys(FLOORS, -1.0), {"boundaries": 0.1}])
def test_thresholds_are_never_below_the_floors(scores: dict[str, float]) -> None:
    assert GateThresholds(scores, segmenter_dice=-1).least == FLOORS


def test_thresholds_above_the_floors_count() -> None:
    strict = GateThresholds({"structure_kept": 0.9, "fine_structure": 0.8})
    assert strict.least == {**FLOORS, "structure_kept": 0.9, "fine_structure": 0.8}


@pytest.mark.parametrize("gate", [None, {"scores": {}}, {"scores": {"structure_kept": -1}, "segmenter_dice": -1}])
def test_a_forged_folder_cannot_switch_the_gate_off(
    gate: dict | None, stylizer: OSASISStylizer, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stylizer.gate = None if gate is None else GateThresholds(**json.loads(json.dumps(gate)))
    image = draw(3, size=64)
    turned = [255 - 3 * np.roll(image.astype(np.float32), 20, axis=-1)]
    monkeypatch.setattr(OSASISStylizer, "stylize_arrays", lambda *arguments, **options: turned)
    np.testing.assert_array_equal(OSASISStylize(stylizer)(image), image)


def test_every_score_is_required_to_its_last_digit() -> None:
    scores = dict.fromkeys(set(FLOORS) - {"segmenter_dice", "segmenter_lesions"}, 0.9)
    for name in scores:
        least = dict.fromkeys(scores, 0.9)
        assert not StructureScores(**scores).failures(least)
        assert StructureScores(**scores | {name: 0.8999}).failures(least).keys() == {name}
        assert not StructureScores(**scores | {name: 0.8999}).failures(least | {name: 0.8999})


def test_the_gate_itself_is_not_laxer_than_its_thresholds() -> None:
    source = draw(3, size=64).astype(np.float32)
    changed = source + 12 * np.random.default_rng(0).standard_normal(source.shape).astype(np.float32)
    reached = GATE(source, changed, 1.0).decision.scores["structure_kept"]
    assert FLOORS["structure_kept"] < reached < 0.99
    for asked, outcome in ((reached, "full"), (round(reached + 0.0002, 4), "weaker")):
        gate = StructureGate(GateThresholds({"structure_kept": asked}), BYTES)
        assert gate(source, changed, 1.0).decision.outcome == outcome


def test_a_calibration_is_as_strict_as_its_undamaged_views_allow() -> None:
    views = [StructureScores(0.5 + k / 1000, 0.4 + k / 1000, 0.3 + k / 1000) for k in range(100)]
    assert thresholds_for(views) == {"boundaries": 0.5009, "structure_kept": 0.4009, "structure_not_invented": 0.3009}
    assert thresholds_for(views[:99])["boundaries"] == pytest.approx(0.4999)


def test_what_the_caller_computes_in_changes_no_score() -> None:
    source = draw(3, size=64).astype(np.float32) / 127.5 - 1
    changed, mask = (0.7 * source + 0.1).astype(np.float32), np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 1
    expected = score_structure(source, changed, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert score_structure(source, changed, mask) == expected
    with torch.inference_mode():
        assert score_structure(source, changed, mask) == expected
    with torch.no_grad():
        assert score_structure(source, changed, mask) == expected
    with torch.device("meta"):
        assert score_structure(source, changed, mask) == expected
    torch.set_default_dtype(torch.float64)
    try:
        assert score_structure(source, changed, mask) == expected
    finally:
        torch.set_default_dtype(torch.float32)
