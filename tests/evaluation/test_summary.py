"""From rows to a table: what is compared with what, and what becomes of undefined values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnunet_osasis.evaluation.report.statistics import holm, paired_difference, training_test, wilcoxon_p
from nnunet_osasis.evaluation.report.summary import ScoreTable, summarise
from nnunet_osasis.maps.distance import ciede2000, distances, psnr, ssim

from .scores import CASES, rows_of
from .sites import experiment, image_set, picture

METHODS = ["none", "fda", "gin", "osasis"]
MEANS = {"none": 0.6, "fda": 0.68, "gin": 0.64, "osasis": 0.74, "truth": 0.8}
SITE = [{"name": "b", "set": image_set("b")}]


def study(**changes: Any):
    return experiment(**{"methods": METHODS, "targets": SITE, "seeds": [0, 1, 2], **changes})


def by_method(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["method"]: entry for entry in entries}


def test_every_figure_is_computed_from_the_rows_it_names() -> None:
    spec = study()
    rows, groups = rows_of(spec, MEANS)
    entries = by_method(summarise(spec, rows, groups))
    assert list(entries) == METHODS

    def seen(name: str, seed: int) -> list[float]:
        return [row["dice"] for row in rows if (row["method"], row["seed"], row["test"]) == (name, seed, "b")]

    scores = {name: np.array([seen(name, seed) for seed in spec.seeds]) for name in METHODS}
    for name, entry in entries.items():
        assert entry["target"]["mean"] == pytest.approx(scores[name].mean())
        assert entry["difference"] == paired_difference(scores[name], scores["none"])
        assert entry["points"] == pytest.approx(100 * (scores[name].mean() - scores["none"].mean()))
        assert entry["per_seed"] == pytest.approx(scores[name].mean(axis=1))
        assert entry["spread"] == pytest.approx(scores[name].mean(axis=1).std(ddof=1))
        assert (entry["seeds"], entry["cases"], entry["groups"]) == (3, CASES, CASES)
    p_values = [wilcoxon_p(scores[name], scores["none"]) for name in METHODS[1:]]
    assert [entries[name]["p_holm"] for name in METHODS[1:]] == holm(p_values)
    tests = [training_test(scores[name], scores["none"]) for name in METHODS[1:]]
    for name, test in zip(METHODS[1:], tests, strict=True):
        assert entries[name]["test"] == pytest.approx(test)
    assert [entries[name]["p_test"] for name in METHODS[1:]] == [entries[name]["test"]["p"] for name in METHODS[1:]]
    assert [entries[name]["test_holm"] for name in METHODS[1:]] == pytest.approx(holm([test["p"] for test in tests]))
    assert set(entries["gin"]["source_test"]) == {"mean", "low", "high", "p"}
    assert entries["none"]["difference"]["mean"] == 0 and not {"p_holm", "test_holm"} & set(entries["none"])


def test_a_stylizer_is_held_against_the_best_free_control_and_the_gap_against_the_truth() -> None:
    camera = {"name": "camera", "camera": {"seed": 3}, "reference_pool": image_set("a", include=["10-12"])}
    spec = study(targets=[camera], methods=[*METHODS, "truth"])
    rows, groups = rows_of(spec, MEANS)
    entries = by_method(summarise(spec, rows, groups))
    assert [lead["method"] for lead in entries["osasis"]["against"]] == ["fda", "gin"]  # the best first
    assert [lead["mean"] for lead in entries["osasis"]["against"]] == pytest.approx([0.06, 0.1], abs=0.015)
    assert all(lead["low"] < lead["mean"] < lead["high"] and lead["p"] < 0.05 for lead in entries["osasis"]["against"])
    assert not any("against" in entries[name] for name in ("none", "fda", "gin", "truth"))
    assert entries["osasis"]["gap_closed"]["mean"] == pytest.approx(0.7, abs=0.1)
    assert entries["truth"]["gap_closed"] is None  # of itself
    assert entries["none"]["gap_closed"]["mean"] == 0


def test_patients_not_images_are_counted_and_resampled() -> None:
    spec = study()
    rows, groups = rows_of(spec, MEANS)
    patients = {test: {case: str(int(case) // 5) for case in cases} for test, cases in groups.items()}
    alone, together = (by_method(summarise(spec, rows, each))["osasis"] for each in (groups, patients))
    assert together["groups"] == CASES // 5
    assert together["difference"]["mean"] == alone["difference"]["mean"]
    assert together["difference"] != alone["difference"]


def test_undefined_values_are_counted_and_left_out_never_zero() -> None:
    spec = study(methods=["none", "gin"])
    rows, groups = rows_of(spec, MEANS)
    for row in rows:
        row["hd95"] = None if row["case"] in ("00", "01") or row["method"] == "gin" else 4.0
    entries = by_method(summarise(spec, rows, groups))
    assert entries["none"]["metrics"]["hd95"] == 4.0
    assert entries["none"]["undefined"] == {"dice": 0, "iou": 0, "specificity": 0, "mae": 0, "hd95": 6}
    assert entries["gin"]["metrics"]["hd95"] is None and entries["gin"]["undefined"]["hd95"] == 3 * CASES
    assert entries["none"]["metrics"]["dice"] == pytest.approx(0.6, abs=0.02)


def test_checks_are_in_no_correction() -> None:
    methods = ["none", "identity", "fda"]
    rows, groups = rows_of(study(methods=methods), {**MEANS, "identity": 0.6})
    entries = by_method(summarise(study(methods=methods), rows, groups))
    assert not {"p_holm", "test_holm"} & set(entries["identity"])
    assert entries["fda"]["test_holm"] == entries["fda"]["p_test"] and entries["fda"]["p_holm"] == entries["fda"]["p"]


def test_one_training_has_no_spread_and_unfinished_ones_do_not_count() -> None:
    spec = study(seeds=[0])
    rows, groups = rows_of(spec, MEANS)
    assert {entry["spread"] for entry in summarise(spec, rows, groups)} == {None}
    spec = study()
    rows, groups = rows_of(spec, MEANS)
    rows = [r for r in rows if not (r["method"] == "gin" and r["seed"] == 2 and r["case"] > "10")]
    rows = [r for r in rows if r["method"] != "fda"]
    entries = by_method(summarise(spec, rows, groups))
    assert entries["gin"]["seeds"] == 2 and entries["none"]["seeds"] == 3 and "fda" not in entries
    assert ScoreTable(rows).scores("unet", "fda", "b", "b", "dice") is None


def test_nothing_without_a_baseline() -> None:
    spec = study()
    rows, groups = rows_of(spec, MEANS)
    assert summarise(spec, [r for r in rows if r["method"] != "none"], groups) == []


def test_distances_to_the_truth_have_known_values() -> None:
    image = picture(1)
    assert (psnr(image, image), ssim(image, image), ciede2000(image, image)) == (
        99.0,
        pytest.approx(1),
        pytest.approx(0, abs=1e-9),
    )
    shifted = (image.astype(int) // 2 + 20).astype(np.uint8)
    ten = np.clip(image.astype(int) // 2 + 30, 0, 255).astype(np.uint8)
    assert psnr(ten, shifted) == pytest.approx(20 * np.log10(255 / 10))
    assert ciede2000(ten, shifted) > 1 and ssim(picture(2), image) < 0.9
    found = distances([image] * 100, [shifted] * 100, most=7)
    assert {name: len(column) for name, column in found.items()} == {"psnr": 7, "ssim": 7, "ciede2000": 7}
    grey = image[:1]
    assert ciede2000(grey, grey) == pytest.approx(0, abs=1e-9)
    assert ssim(grey, grey) == pytest.approx(1)
