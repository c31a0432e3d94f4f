"""The structure gate in transforms: nothing damaged is handed on, and every decision can be written down."""

from pathlib import Path

import numpy as np
import pytest
from specimens import draw

from monai_transforms import OSASISStylize, OSASISStylized, RandOSASISStylize
from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.gate import GateThresholds
from nnunet_osasis.gate.audit import read_audit

STRICT = GateThresholds({"boundaries": 1.0, "structure_kept": 1.0, "structure_not_invented": 1.0})
"""Nothing but the image itself passes."""


@pytest.fixture
def image() -> np.ndarray:
    return draw(3, size=40).astype(np.float32)


@pytest.fixture
def strict(stylizer: OSASISStylizer) -> OSASISStylizer:
    stylizer.gate = STRICT
    return stylizer


def test_what_passes_is_what_the_stylizer_makes(stylizer: OSASISStylizer, image: np.ndarray) -> None:
    np.testing.assert_array_equal(OSASISStylize(stylizer)(image), stylizer.stylize_array(image))


def test_what_fails_comes_back_unchanged(strict: OSASISStylizer, image: np.ndarray) -> None:
    np.testing.assert_array_equal(OSASISStylize(strict)(image), image)
    np.testing.assert_array_equal(OSASISStylized("image", strict)({"image": image})["image"], image)
    random = RandOSASISStylize(strict, prob=1.0).set_random_state(0)
    np.testing.assert_array_equal(random(image), image)
    assert not np.array_equal(OSASISStylize(strict, gate=False)(image), image)


def test_a_batch_is_decided_sample_by_sample(
    stylizer: OSASISStylizer, image: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = OSASISStylizer.stylize_arrays

    def second_is_repainted(*arguments: object, **options: object) -> list[np.ndarray]:
        done = whole(*arguments, **options)  # type: ignore[arg-type]
        return [
            255 - 3 * np.roll(changed, 20, axis=-1) if array.flat[0] > 250 else changed
            for changed, array in zip(done, arguments[1], strict=True)
        ]  # type: ignore[call-overload]

    monkeypatch.setattr(OSASISStylizer, "stylize_arrays", second_is_repainted)
    other = image.copy()
    other.flat[0] = 255
    found = OSASISStylize(stylizer, batched=True, audit=tmp_path / "audit.jsonl")(np.stack([image, other]))
    np.testing.assert_array_equal(found[0], stylizer.stylize_array(image))
    np.testing.assert_array_equal(found[1], other)
    assert sorted(row["decision"] for row in read_audit(tmp_path / "audit.jsonl")) == ["full", "original"]


def test_decisions_are_written_down_by_file_name(stylizer: OSASISStylizer, image_folder: Path, tmp_path: Path) -> None:
    from monai.transforms import LoadImage

    path = image_folder / "images" / "case 1.png"
    read = LoadImage(image_only=True, ensure_channel_first=True)(path)
    OSASISStylize(stylizer, audit=tmp_path / "audit.jsonl")(read)
    assert [row["case"] for row in read_audit(tmp_path / "audit.jsonl")] == [str(path)]


def test_a_stylizer_without_thresholds_is_only_refused_when_a_gate_is_asked_for(
    stylizer: OSASISStylizer, image: np.ndarray
) -> None:
    stylizer.gate = None
    np.testing.assert_array_equal(OSASISStylize(stylizer)(image), stylizer.stylize_array(image))
    with pytest.raises(OsasisError, match="thresholds"):
        OSASISStylize(stylizer, gate=True)(image)
    with pytest.raises(OsasisError, match="audit"):
        OSASISStylize(stylizer, gate=False, audit="audit.jsonl")
