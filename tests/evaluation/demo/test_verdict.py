"""The verdict follows from the numbers, also where it is unwelcome."""

from __future__ import annotations

from nnunet_osasis.evaluation.demo.verdict import verdict


def test_osasis_wins_only_with_a_lead_over_the_best_control(make_results):
    result = verdict(make_results(none=0.5, histogram=0.55, reinhard=0.6, osasis=0.7, truth=0.8))
    assert result["rule"] == "osasis"
    assert any("closes 67% of the gap" in sentence for sentence in result["sentences"])


def test_histogram_matching_is_enough_when_osasis_is_not_separable(make_results):
    result = verdict(make_results(none=0.5, histogram=0.7, reinhard=0.6, osasis=0.7, truth=0.8))
    assert result["rule"] == "tie"
    assert result["title"].startswith("Histogram matching is enough here")


def test_a_control_that_beats_osasis_is_named(make_results):
    result = verdict(make_results(none=0.5, histogram=0.55, reinhard=0.75, osasis=0.65, truth=0.8))
    assert result["rule"] == "control" and "Pooled Reinhard is enough here" in result["title"]


def test_osasis_that_does_not_help_is_said_so(make_results):
    result = verdict(make_results(none=0.5, histogram=0.6, reinhard=0.55, osasis=0.5, truth=0.8))
    assert result["rule"] == "control" and "OSASIS did not help" in result["title"]


def test_no_method_helped(make_results):
    result = verdict(make_results(none=0.6, histogram=0.5, reinhard=0.6, osasis=0.6, truth=0.8))
    assert result["rule"] == "none" and result["title"] == "No method helped."
    assert any("Worse than no style transfer: histogram matching" in sentence for sentence in result["sentences"])


def test_no_shift_no_praise(make_results):
    result = verdict(make_results(none=0.85, histogram=0.87, reinhard=0.87, osasis=0.9, truth=0.9))
    assert result["rule"] == "no_shift"


def test_untrained_networks_prove_nothing(make_results):
    results = make_results(none=0.2, histogram=0.3, reinhard=0.3, osasis=0.6, truth=0.6, source={"none": 0.3})
    assert verdict(results)["rule"] == "untrained"


def test_in_domain_cost_is_reported(make_results):
    costly = make_results(none=0.5, histogram=0.55, reinhard=0.6, osasis=0.7, truth=0.8, source={"osasis": 0.75})
    assert any("OSASIS lose there" in sentence for sentence in verdict(costly)["sentences"])
    free = make_results(none=0.5, histogram=0.55, reinhard=0.6, osasis=0.7, truth=0.8)
    assert any("no method loses" in sentence for sentence in verdict(free)["sentences"])


def test_moved_edges_are_a_warning(make_results):
    moved = make_results(none=0.5, histogram=0.55, reinhard=0.6, osasis=0.7, truth=0.8, edge=1.5)
    assert any(sentence.startswith("Warning") for sentence in verdict(moved)["sentences"])


def test_own_images_have_no_upper_bound(make_results):
    result = verdict(make_results(own=True, none=0.5, histogram=0.55, reinhard=0.6, osasis=0.7))
    assert result["rule"] == "osasis" and not any("gap" in sentence for sentence in result["sentences"])
