"""One case: what each metric says of empty and full masks, what is refused, and what is not computed unless asked."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.metrics import METRICS, STANDARD, choose_protocol, score_case, score_labels
from nnunet_osasis.evaluation.metrics import score as score_module

NAN = math.nan
SHAPE = (20, 30)
SIZE = SHAPE[0] * SHAPE[1]
DIAGONAL = math.hypot(*SHAPE)
EMPTY, FULL = np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
DISC = np.hypot(*(np.indices(SHAPE) - np.array([10, 12])[:, None, None])) < 5
SHARE = DISC.mean()

# docs/evaluation.md states the same table in words.
EDGES = {
    "both empty": (EMPTY, EMPTY, dict(
        dice=1, iou=1, specificity=1, wf=NAN, s=1, s_object=1, mae=0, hd95=0, nsd=1, lesions=0, lesions_false=0,
        lesion_recall=NAN, lesion_precision=NAN, e_max=SIZE / (SIZE - 1), e_continuous=SIZE / (SIZE - 1),
    )),
    "empty prediction": (EMPTY, DISC, dict(
        dice=0, iou=0, specificity=1, wf=0, mae=SHARE, hd95=DIAGONAL, nsd=0, lesions=1, lesions_missed=1,
        lesion_recall=0, lesion_precision=NAN,
    )),
    "empty truth": (DISC, EMPTY, dict(
        dice=0, iou=0, specificity=1 - SHARE, wf=NAN, s=1 - SHARE, s_region=1 - SHARE, mae=SHARE, hd95=DIAGONAL, nsd=0,
        lesions=0, lesions_false=1, lesion_recall=NAN, lesion_precision=0,
    )),
    "full prediction": (FULL, DISC, dict(
        dice=2 * SHARE / (1 + SHARE), iou=SHARE, specificity=0, mae=1 - SHARE, lesions_found=1, lesions_false=0,
    )),
    "full truth": (DISC, FULL, dict(
        dice=2 * SHARE / (1 + SHARE), specificity=NAN, specificity_mean=NAN, s=SHARE, mae=1 - SHARE, lesions_found=1,
    )),
    "both full": (FULL, FULL, dict(dice=1, iou=1, specificity=NAN, wf=1, s=1, mae=0, hd95=0, nsd=1, lesion_recall=1)),
    "perfect": (DISC, DISC, dict(
        dice=1, iou=1, specificity=1, wf=1, s=1, s_object=1, s_region=1, e_max=SIZE / (SIZE - 1), mae=0, hd95=0, nsd=1,
        lesion_recall=1, lesion_precision=1,
    )),
}  # fmt: skip


@pytest.mark.parametrize("name", EDGES)
def test_masks_at_the_edge_have_the_documented_values(name: str) -> None:
    prediction, truth, expected = EDGES[name]
    found = score_case(prediction, truth)
    assert list(found) == list(METRICS)
    for metric, value in expected.items():
        assert found[metric] == pytest.approx(value, abs=1e-9, nan_ok=True), metric
    undefined = {metric for metric, value in found.items() if math.isnan(value)}
    assert undefined <= {"wf", "specificity", "specificity_mean", "lesion_recall", "lesion_precision"}


def test_a_map_counts_as_foreground_from_the_threshold_on() -> None:
    truth = np.array([[1, 1, 0, 0]])
    assert score_case(np.array([[0.5, 1, 0.49, 0]]), truth, metrics=["dice"]) == {"dice": 1.0}
    lower = choose_protocol(threshold=0.4)
    assert score_case(np.array([[0.5, 1, 0.49, 0]]), truth, protocol=lower)["dice"] == pytest.approx(0.8)


def test_all_thresholds_at_once_are_the_thresholds_one_by_one(blob, noisy) -> None:
    truth = blob(3)
    prediction = np.rint(noisy(truth, 0, noise=0.1) * 255) / 255
    found = score_case(prediction, truth, metrics=["dice_mean", "iou_mean", "specificity_mean", "e_mean", "e_max"])
    single = [
        score_case(np.floor(prediction * 255) >= level, truth, metrics=["dice", "iou", "specificity", "e_continuous"])
        for level in range(256)
    ]
    for name in ("dice", "iou", "specificity"):
        assert found[f"{name}_mean"] == pytest.approx(np.mean([s[name] for s in single]), abs=1e-12)
    # A mask's E without a threshold is its E at any threshold.
    assert found["e_mean"] == pytest.approx(np.mean([s["e_continuous"] for s in single]), abs=1e-9)
    assert found["e_max"] == pytest.approx(np.max([s["e_continuous"] for s in single]), abs=1e-9)


def test_callers_pay_only_for_what_they_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(case: object) -> dict[str, float]:
        raise AssertionError("computed without being asked for")

    for group in set(score_module.GROUPS) - {"overlap"}:
        monkeypatch.setitem(score_module.GROUPS, group, refuse)
    assert list(score_case(DISC, DISC, metrics=("iou", "dice"))) == ["dice", "iou"]


def test_the_package_needs_neither_torch_nor_matplotlib_nor_pandas_to_import() -> None:
    import subprocess
    import sys

    heavy = "('torch', 'monai', 'matplotlib', 'pandas')"
    code = f"import sys, nnunet_osasis.evaluation.metrics\nprint([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_volumes_have_no_measures_of_images(blob) -> None:
    truth = blob(0, (5, 16, 18), share=0.3, smooth=2)
    found = score_case(truth, truth, metrics=None)
    assert "dice" in found and "hd95" in found and not {"s", "e_max", "wf"} & set(found)
    with pytest.raises(OsasisError, match="on images only; got s for a volume"):
        score_case(truth, truth, metrics=["s"])


BAD = {
    "sizes": (np.zeros((4, 5)), np.zeros((5, 4)), {}, "one size"),
    "rank": (np.zeros(4), np.zeros(4), {}, r"\(H, W\)"),
    "nothing": (np.zeros((0, 4)), np.zeros((0, 4)), {}, "axes"),
    "nan": (np.full((4, 4), np.nan), np.zeros((4, 4)), {}, r"map in \[0, 1\]"),
    "range": (np.full((4, 4), 200), np.zeros((4, 4)), {}, "Divide 8-bit maps by 255"),
    "logits": (np.full((4, 4), -0.5), np.zeros((4, 4)), {}, "from -0.5"),
    "text": (np.full((4, 4), "a"), np.zeros((4, 4)), {}, "numbers"),
    "soft truth": (np.zeros((4, 4)), np.full((4, 4), 0.5), {}, "0 and 1 only"),
    "nan truth": (np.zeros((4, 4)), np.full((4, 4), np.nan), {}, "0 and 1 only"),
    "spacing": (np.zeros((4, 4)), np.zeros((4, 4)), {"spacing": (1, 1, 1)}, "one positive number per axis"),
    "no spacing": (np.zeros((4, 4)), np.zeros((4, 4)), {"spacing": (1, 0)}, "one positive number per axis"),
    "metric": (np.zeros((4, 4)), np.zeros((4, 4)), {"metrics": ["dise"]}, "dise"),
    "protocol": (np.zeros((4, 4)), np.zeros((4, 4)), {"protocol": "papers"}, "standard, paper, pysodmetrics"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str) -> None:
    prediction, truth, options, words = BAD[name]
    with pytest.raises(OsasisError, match=words):
        score_case(prediction, truth, **options)


@pytest.mark.parametrize("changes", [{"threshold": 0}, {"tolerance": -1}, {"lesion_overlap": 2}, {"treshold": 0.5}])
def test_a_protocol_refuses_settings_without_meaning(changes: dict) -> None:
    with pytest.raises(OsasisError):
        choose_protocol("standard", **changes)


def test_classes_are_scored_against_the_rest_and_averaged_without_background(blob) -> None:
    truth = blob(0) + 2 * (blob(1) & ~blob(0))
    prediction = np.roll(truth, 1, axis=0)
    found = score_labels(prediction, truth, [1, 2], metrics=["dice", "lesions_found"])
    assert found[2] == score_case(prediction == 2, truth == 2, metrics=["dice", "lesions_found"])
    assert found["mean"]["dice"] == pytest.approx((found[1]["dice"] + found[2]["dice"]) / 2)
    by_map = score_labels({c: (prediction == c) * 0.9 for c in (1, 2)}, truth, [1, 2], metrics=["dice"])
    assert by_map[1]["dice"] == found[1]["dice"]


def test_a_class_without_truth_stays_out_of_means_where_it_is_undefined() -> None:
    found = score_labels(DISC.astype(int), DISC.astype(int), [1, 2], metrics=["dice", "lesion_recall"])
    assert found["mean"] == {"dice": 1.0, "lesion_recall": 1.0}
    assert math.isnan(score_labels(EMPTY, EMPTY, [3], metrics=["wf"])["mean"]["wf"])
    assert STANDARD.empty_overlap == 1


def lesion_masks() -> tuple[np.ndarray, np.ndarray]:
    """Three true lesions: one hit in two pieces, one touched by 1 of 16 pixels, one missed; one false component."""
    truth, prediction = np.zeros((30, 30), bool), np.zeros((30, 30), bool)
    truth[2:6, 2:12] = truth[12:16, 2:6] = truth[22:26, 2:6] = True
    prediction[2:6, 2:5] = prediction[2:6, 8:12] = prediction[15:18, 5:9] = prediction[20:24, 20:24] = True
    return prediction, truth


@pytest.mark.parametrize(("overlap", "found", "false"), [(0.1, 1, 2), (0.0, 2, 1), (1 / 16, 2, 1), (0.8, 0, 2)])
def test_lesions_are_found_by_the_stated_share(overlap: float, found: int, false: int) -> None:
    scores = score_case(*lesion_masks(), protocol=choose_protocol(lesion_overlap=overlap))
    assert (scores["lesions"], scores["lesions_found"], scores["lesions_missed"]) == (3, found, 3 - found)
    assert scores["lesions_false"] == false
    assert scores["lesion_recall"] == pytest.approx(found / 3)
    assert scores["lesion_precision"] == pytest.approx((4 - false) / 4)


def test_pixels_that_touch_at_a_corner_are_one_lesion() -> None:
    assert score_case(np.eye(6), np.eye(6), metrics=["lesions"]) == {"lesions": 1}
    cube = np.zeros((4, 4, 4))
    cube[[0, 1, 2], [0, 1, 2], [0, 1, 2]] = 1
    assert score_case(cube, cube, metrics=["lesions"]) == {"lesions": 1}
