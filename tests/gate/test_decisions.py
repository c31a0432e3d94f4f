"""Use it, use it weaker, or keep the original; and where the thresholds come from."""

from dataclasses import replace

import numpy as np
import pytest
from specimens import draw, second_camera

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import GateThresholds, StructureGate, calibrate_gate, score_structure
from nnunet_osasis.gate.calibration import ERASED_SMALL, IMAGES, EvenlySpaced, middle
from nnunet_osasis.gate.damage import KINDS
from nnunet_osasis.gate.gate import dice, lesions_kept
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.stylizer import OSASISStylizer

BYTES = IntensityRange("fixed", 0, 255)


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    return [draw(seed, size=64).astype(np.float32) / 127.5 - 1 for seed in range(4)]


@pytest.fixture(scope="module")
def thresholds(scenes: list[np.ndarray]) -> GateThresholds:
    return calibrate_gate(scenes)


def test_calibration_lets_other_cameras_pass_and_finds_damage(
    scenes: list[np.ndarray], thresholds: GateThresholds
) -> None:
    assert thresholds.views == 48
    assert thresholds.false_alarms <= 0.01
    assert thresholds.detection["erased"]["with_mask"] == thresholds.detection[ERASED_SMALL]["with_mask"] == 1.0
    assert thresholds.detection["erased"]["without_mask"] >= 0.5
    assert set(thresholds.detection) == {*KINDS, ERASED_SMALL}
    other = draw(77, size=64)
    camera = second_camera(other).astype(np.float32) / 127.5 - 1
    assert not score_structure(other.astype(np.float32) / 127.5 - 1, camera).failures(thresholds.least)


def test_the_same_images_give_the_same_thresholds_and_json_keeps_them(
    scenes: list[np.ndarray], thresholds: GateThresholds
) -> None:
    assert calibrate_gate(scenes) == thresholds
    assert GateThresholds(**thresholds.to_json()) == thresholds
    assert calibrate_gate(scenes, seed=1) != thresholds


def test_a_lossy_round_trip_loosens_the_thresholds(scenes: list[np.ndarray], thresholds: GateThresholds) -> None:
    lossy = calibrate_gate(scenes, restyle=lambda image: np.roll(image, 4, axis=2))
    assert lossy.round_trip
    assert lossy.scores["structure_kept"] < thresholds.scores["structure_kept"]


def test_thresholds_by_the_former_names_of_scores_are_read() -> None:
    thresholds = GateThresholds({"kept": 0.8, "own": 0.9, "boundaries": 0.7})
    assert thresholds.scores == {"structure_kept": 0.8, "structure_not_invented": 0.9, "boundaries": 0.7}
    assert thresholds.to_json()["scores"] == thresholds.scores


@pytest.mark.parametrize(
    "bad",
    [{"scores": {"beauty": 0.5}}, {"scores": {"structure_kept": "high"}}, {"scores": {"structure_not_invented": 7}}],
)
def test_thresholds_that_mean_nothing_are_refused(bad: dict) -> None:
    with pytest.raises(OsasisError, match="threshold"):
        GateThresholds(**bad)


def test_a_gate_without_images_is_refused() -> None:
    with pytest.raises(OsasisError, match="source images"):
        calibrate_gate([])


def gate_and_image(thresholds: GateThresholds) -> tuple[StructureGate, np.ndarray]:
    return StructureGate(thresholds, BYTES), draw(5, size=64).astype(np.float32)


def test_a_good_image_is_used_as_it_is(thresholds: GateThresholds) -> None:
    gate, image = gate_and_image(thresholds)
    result = gate(image, 0.8 * image + 10, 1.0)
    assert result.decision.outcome == "full"
    assert result.decision.failures == {}
    np.testing.assert_allclose(result.image, 0.8 * image + 10, rtol=1e-5)


def test_what_fails_is_tried_weaker(thresholds: GateThresholds) -> None:
    gate, image = gate_and_image(thresholds)
    noise = np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    amounts = {}
    for amount in (5, 10, 20, 40, 80):
        result = gate(image, image + amount * noise, 0.8)
        amounts[amount] = result.decision.strength
        share = np.float32(result.decision.strength / 0.8)
        np.testing.assert_allclose(result.image, image + share * amount * noise, atol=1e-3)
        assert bool(result.decision.failures) == (result.decision.outcome != "full") == (share < 1)
    assert list(amounts.values()) == sorted(amounts.values(), reverse=True)
    assert set(amounts.values()) - {0.0} > {0.8}
    assert any(result == pytest.approx(0.4) or result == pytest.approx(0.2) for result in amounts.values())


@pytest.mark.parametrize("low", [0.9, 0.97, 0.99, 0.995, 0.999])
def test_blending_decides_as_stylizing_again_at_every_strength(stylizer: OSASISStylizer, low: float) -> None:
    """One restyled image is blended; restyling anew at each strength gives the same decisions and images."""
    restyler = stylizer.configured(readout="raw")
    gate = StructureGate(GateThresholds({"structure_kept": low, "structure_not_invented": low}), BYTES)
    for seed in range(3):
        image = draw(seed, size=40).astype(np.float32)
        outcome, strength, expected = "original", 0.0, image.astype(np.float32)
        for share in (1.0, 0.75, 0.5, 0.25):
            again = restyler.stylize_array(image, strength=share)
            scores = score_structure(*(part.astype(np.float32) / 127.5 - 1 for part in (image, again)))
            if not scores.failures(gate.thresholds.least):
                outcome, strength, expected = "full" if share == 1 else "weaker", share, again
                break
        result = gate(image, restyler.stylize_array(image), 1.0)
        assert (result.decision.outcome, result.decision.strength) == (outcome, strength)
        np.testing.assert_allclose(result.image, expected, atol=0.01)


def test_when_nothing_passes_the_original_comes_back_bit_for_bit(thresholds: GateThresholds) -> None:
    gate, image = gate_and_image(thresholds)
    result = gate(image, np.roll(image, 32, axis=2), 1.0)
    assert (result.decision.outcome, result.decision.strength) == ("original", 0.0)
    np.testing.assert_array_equal(result.image, image)


def test_strength_zero_asks_nobody(thresholds: GateThresholds) -> None:
    gate, image = gate_and_image(thresholds)
    asking = replace(gate, segmenter=lambda array: pytest.fail("asked at strength 0"))
    result = asking(image, image + 10, 0.0)
    np.testing.assert_array_equal(result.image, image)


class Brightness:
    """A segmenter that goes by absolute brightness, as one trained on a single camera does."""

    fingerprint = "brightness"

    def __call__(self, array: np.ndarray) -> np.ndarray:
        return (array.mean(axis=0) > 128).astype(np.uint8)


def test_a_frozen_segmenter_that_disagrees_rejects(thresholds: GateThresholds) -> None:
    gate, image = gate_and_image(thresholds)
    asked = replace(gate, segmenter=Brightness())
    darker = asked(image, image - 60, 1.0)
    assert darker.decision.failures.keys() == {"segmenter_dice"}
    assert darker.decision.strength < 1
    assert gate(image, image - 60, 1.0).decision.outcome == "full"
    assert asked.identity() != gate.identity()


def test_a_lesion_that_the_segmenter_no_longer_finds_rejects(thresholds: GateThresholds) -> None:
    before, after = np.zeros((8, 8), int), np.zeros((8, 8), int)
    mask = np.zeros((8, 8), int)
    mask[1:3, 1:3] = mask[5:7, 5:7] = 1
    before[1:7, 1:7] = 1
    after[1:4, 1:4] = 1
    assert lesions_kept(before, after, mask) == 0.5
    assert lesions_kept(before, before, mask) == 1
    assert lesions_kept(np.zeros_like(before), after, mask) is None
    assert thresholds.least["segmenter_lesions"] == 1


def test_dice_of_answers() -> None:
    a, b = np.array([[0, 1, 1, 2]]), np.array([[0, 1, 0, 2]])
    assert dice(a, a) == 1
    assert dice(a, b) == pytest.approx((2 / 3 + 1) / 2)
    assert dice(np.zeros((2, 2)), np.zeros((2, 2))) == 1
    assert dice(a, np.zeros_like(a)) == 0


@pytest.mark.parametrize("count", [1, 16, 32, 33, 100, 1000])
def test_images_for_calibration_are_evenly_spaced_whatever_their_number(count: int) -> None:
    spread = EvenlySpaced()
    for i in range(count):
        spread.add(np.full((1, 2, 2), i, np.float32))
    chosen = [int(image[0, 0, 0]) for image in spread.kept]
    assert min(count, IMAGES) <= len(chosen) <= 2 * IMAGES
    assert len(set(np.diff(chosen))) <= 1


def test_of_large_images_the_middle_is_taken() -> None:
    image = np.zeros((1, 700, 30), np.float32)
    image[:, 350] = 1
    assert middle(image).shape == (1, 512, 30)
    assert middle(image)[0, 256].all()
