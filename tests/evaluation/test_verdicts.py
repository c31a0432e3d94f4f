"""The verdict follows from the numbers, also where it is unwelcome."""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd
import pytest

from nnunet_osasis.evaluation.report import statistics
from nnunet_osasis.evaluation.report.document import Code, Heading, Picture, Table, Text, to_html, to_markdown
from nnunet_osasis.evaluation.report.summary import summarise
from nnunet_osasis.evaluation.report.tables import main_table, metric_table, score_table
from nnunet_osasis.evaluation.report.verdict import check_sentences, verdict

from .scores import rows_of
from .sites import experiment, image_set


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)


METHODS = ["none", "identity", "fda", "gin", "osasis"]
CAMERA = [{"name": "b", "camera": {"seed": 1}, "reference_pool": image_set("a")}]


def entries_of(target: dict[str, float], **changes: Any) -> list[dict[str, Any]]:
    source, noise = changes.pop("source", None), changes.pop("noise", 0.02)
    more = {"methods": METHODS, "targets": CAMERA, "seeds": [0, 1, 2], **changes}
    spec = experiment(**more)
    means = {"none": 0.6, "identity": 0.6, "fda": 0.6, "gin": 0.6, "osasis": 0.6, "truth": 0.8, **target}
    return summarise(spec, *rows_of(spec, means, source=source, noise=noise))


def judged(target: dict[str, float], **changes: Any) -> dict[str, Any]:
    return verdict(entries_of(target, **changes))


def said(found: dict[str, Any]) -> str:
    return " ".join(found["sentences"])


def test_a_stylizer_that_leads_the_best_control_is_recommended() -> None:
    found = judged({"osasis": 0.75, "fda": 0.66})
    assert found["rule"] == "stylizer" and found["title"] == "OSASIS helps here, and more than every free control."
    assert "Better than none after correction for 3 methods: FDA +0.0" in said(found)
    assert "OSASIS minus FDA, the best free control: +0.0" in said(found)
    assert "0.850 in-domain and 0.600 on b: a loss of 0.250" in said(found)
    assert "In-domain no method loses, even before correction." in said(found) and "Caution" not in said(found)


def test_a_price_in_domain_is_in_the_title() -> None:
    found = judged({"osasis": 0.75}, source={"osasis": 0.75})
    assert found["rule"] == "stylizer" and "at a price in-domain" in found["title"]
    assert "In-domain cost (before correction): OSASIS -0.1" in said(found)


def test_a_control_is_enough_when_the_stylizer_is_not_separable() -> None:
    found = judged({"osasis": 0.702, "fda": 0.7})
    assert found["rule"] == "control" and found["title"] == "FDA is enough here: OSASIS is not separable from it."


def test_a_control_wins_where_the_stylizer_does_nothing() -> None:
    found = judged({"gin": 0.7})
    assert found["rule"] == "control" and found["title"].startswith(
        "GIN is enough here: no stylization helped beyond chance"
    )
    assert "do not use it" in judged({"gin": 0.7, "osasis": 0.5})["title"]


def test_a_control_that_beats_a_helping_stylizer_is_said_to() -> None:
    found = judged({"fda": 0.8, "osasis": 0.68})
    assert (found["rule"], found["title"]) == ("control", "FDA is enough here: it beats OSASIS.")


def test_a_stylizer_alone_is_not_called_better_than_controls_it_is_not_separable_from() -> None:
    entries = entries_of({"osasis": 0.7, "fda": 0.7})
    for entry in entries:
        if entry["role"] == "control":
            entry["test_holm"] = 0.2
    found = verdict(entries)
    assert found["rule"] == "stylizer_alone" and "no free control does" in found["title"]


def test_no_lead_over_controls_is_claimed_where_there_were_none() -> None:
    found = judged({"osasis": 0.75}, methods=["none", "osasis"])
    assert found["rule"] == "stylizer_unopposed" and "no free control was run" in found["title"]
    assert "the best free control" not in said(found)


def test_a_harming_stylizer_is_not_to_be_used() -> None:
    found = judged({"osasis": 0.5})
    assert (found["rule"], found["title"]) == ("harm", "Do not use stylization here: OSASIS harms.")
    assert "Worse than none after correction for 3 methods: OSASIS -0.1" in said(found)


def test_nothing_helped() -> None:
    found = judged({"osasis": 0.601}, noise=0.1)
    assert found["rule"] == "none" and "No method differs from none, not even before correction" in said(found)


def test_without_a_shift_nothing_is_recommended() -> None:
    same = {"none": 0.84, "osasis": 0.84, "fda": 0.84, "gin": 0.84, "identity": 0.84}
    found = judged(same)
    assert found["rule"] == "no_shift" and found["title"] == "There is hardly a shift to repair here."
    assert judged({**same, "osasis": 0.7})["rule"] == "harm"
    assert judged({**same, "gin": 0.7})["rule"] == "none"  # where a control harms, it is not the shift that is small
    assert judged({**same, "osasis": 0.9})["rule"] == "stylizer"  # what helps is said, with a shift or without
    assert "a gain of 0.0" in said(judged({"none": 0.9, "identity": 0.9}))


def test_without_a_shift_the_upper_bound_is_no_failed_check() -> None:
    same = dict.fromkeys([*METHODS, "truth"], 0.85)
    assert "NOT as it must be" not in said(judged(same, methods=[*METHODS, "truth"]))


def test_untrained_networks_prove_nothing() -> None:
    low = dict.fromkeys(METHODS, 0.2)
    found = judged({"none": 0.1, "osasis": 0.25}, source=low)
    assert found["rule"] == "untrained" and len(found["sentences"]) == 1


def learned(score: float, **means: float) -> dict[str, Any]:
    """The verdict where a longer training scores so much in-domain (the others: 0.85)."""
    entries = entries_of(means)
    next(entry for entry in entries if entry["role"] == "baseline")["longer"] = {"steps": 800, "score": score}
    return verdict(entries)


@pytest.mark.parametrize("means", [{}, {"none": 0.84}, {"osasis": 0.75}, {"gin": 0.7, "osasis": 0.5}])
def test_trainings_that_had_more_to_learn_prove_nothing(means: dict[str, float]) -> None:
    found = learned(0.92, **means)
    assert found["rule"] == "unfinished" and "train longer" in found["title"] and "shift" not in found["title"]
    assert "Give --iterations 800 or more" in said(found) and "osasis" not in said(found).lower()
    assert learned(0.88, **means)["rule"] != "unfinished"  # 0.03 more for twice the steps is no reason


def scattered(by: float, **means: float) -> dict[str, Any]:
    """The verdict where the seeds of every method differ by so much on the target, their means kept."""
    spec = experiment(methods=METHODS, targets=CAMERA, seeds=[0, 1, 2])
    every = {"none": 0.84, "identity": 0.84, "fda": 0.84, "gin": 0.84, "osasis": 0.84, **means}
    rows, groups = rows_of(spec, every)
    for row in rows:
        if row["test"] != "source":
            row.update({metric: row[metric] + by * (row["seed"] - 1) for metric in spec.metrics})
    return verdict(summarise(spec, rows, groups))


def test_seeds_that_differ_by_more_than_the_methods_are_no_proof_of_a_small_shift() -> None:
    found = scattered(0.1, osasis=0.86)
    assert found["rule"] == "scattered" and "Nothing can be said" in found["title"] and "longer" in found["title"]
    assert "Trainings of one method differ by 0.1" in said(found)
    assert scattered(0.01)["rule"] == "no_shift"  # a spread that hides nothing worth repairing
    assert scattered(0.04, osasis=0.7)["rule"] == "scattered"  # beyond the spread, but not beyond chance
    assert scattered(0.04, osasis=0.4)["rule"] == "harm"  # what is beyond chance is said
    assert scattered(0.1, none=0.6, identity=0.6, fda=0.6, gin=0.6, osasis=0.65)["rule"] == "scattered"
    assert scattered(0.04, none=0.6, identity=0.6, fda=0.6, gin=0.6, osasis=0.65)["rule"] == "none"


def test_an_interval_that_excludes_zero_is_not_enough_without_holm() -> None:
    entries = entries_of({"osasis": 0.7})
    osasis = next(entry for entry in entries if entry["method"] == "osasis")
    assert osasis["test"]["low"] > 0
    osasis["test_holm"] = 0.051
    found = verdict(entries)
    assert found["rule"] == "none" and "Different from none before that correction only: OSASIS +0.1" in said(found)
    osasis["test_holm"] = 0.049
    assert verdict(entries)["rule"] == "stylizer"
    osasis["against"][1]["low"] = -0.001  # every control, not the best alone
    assert verdict(entries)["rule"] == "stylizer_alone"
    osasis["test"]["mean"] = -0.1
    assert verdict(entries)["rule"] == "harm"


def test_the_checks_say_whether_the_harness_can_be_trusted() -> None:
    methods = [*METHODS, "truth"]
    good = check_sentences(entries_of({}, methods=methods), 0.25)
    assert [sentence.rsplit(": ", 1)[1] for sentence in good] == ["as it must be.", "as it must be."]
    bad = check_sentences(entries_of({"identity": 0.7, "truth": 0.58}, methods=methods), 0.25)
    assert all(sentence.endswith("NOT as it must be.") for sentence in bad) and len(bad) == 2
    assert "identity (must change nothing)" in bad[0] and "true target rendering" in bad[1]


def test_checks_are_never_recommended() -> None:
    found = judged({"truth": 0.85, "identity": 0.7}, methods=[*METHODS, "truth"])
    assert found["rule"] == "none"


def test_few_groups_are_cautioned() -> None:
    entries = entries_of({"osasis": 0.75})
    assert "independent group(s)" not in said(verdict(entries))
    for entry in entries:
        entry["groups"] = 9
    assert "Caution: 9 independent group(s) of target cases" in said(verdict(entries))


@pytest.mark.parametrize(("seeds", "caution"), [([0], True), ([0, 1], True), ([0, 1, 2], False)])
def test_few_trainings_are_cautioned(seeds: list[int], caution: bool) -> None:
    found = judged({"osasis": 0.75}, seeds=seeds)
    assert (f"Caution: {len(seeds)} training(s)" in said(found)) is caution


def test_tables_show_undefined_values_as_such_and_json_stays_valid() -> None:
    spec = experiment(methods=METHODS, targets=CAMERA, seeds=[0, 1, 2])
    rows, groups = rows_of(spec, dict.fromkeys(METHODS, 0.6))
    for row in rows:
        row["hd95"] = None if row["method"] == "gin" or row["case"] == "03" else 2.5
    entries = summarise(spec, rows, groups)
    table = metric_table(spec.metrics, entries).set_index("method")
    assert table.loc["GIN"].iloc[-1] == "– (60 undefined)"
    assert table.loc["no style transfer"].iloc[-1] == "2.50 (3 undefined)"
    assert len(main_table(entries)) == len(METHODS) - 1 and len(score_table(spec, entries)) == len(METHODS)
    assert main_table(entries).iloc[0, 2:5].tolist() == ["–", "–", "–"]  # the identity: no correction, no gap
    json.dumps([entries, verdict(entries)], allow_nan=False)


def test_the_page_is_whole_and_nothing_in_it_is_markup_by_accident() -> None:
    blocks = [
        Heading("a < b"), Text("<script>", strong=True), Table(pd.DataFrame({"x": ["a|b", "<b>"], "y": ["1", "0.50"]})),
        Picture("pictures/p.png", b"png", 'say "hi"'), Code(("cmd --a 'b & c'",)),
    ]  # fmt: skip
    page, text = to_html("T & t", blocks), to_markdown("T & t", blocks)
    assert "<script>" not in page and "a &lt; b" in page and "<title>T &amp; t</title>" in page
    assert 'src="data:image/png;base64,cG5n"' in page and "http" not in page.replace("http-equiv", "")
    assert "<b>" not in page and "<td>&lt;b&gt;</td>" in page
    assert (
        re.search(r"\| a\\\|b +\| +1 \|\n\| &lt;b&gt; +\| +0\.50 \|", text)
        and "](pictures/p.png)" in text
        and text.startswith("# T & t\n")
    )
