"""The plain-words verdict of one network on one target: a stated rule on the summary, in a careful reader's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MIN_SHIFT = 0.03
"""Score lost on the target below which there is nothing worth repairing."""

MIN_SKILL = 0.3
"""In-domain score below which the trainings were too short or the data too few."""

LEFT_TO_LEARN = 0.05
"""In-domain score that twice the steps may add before the trainings count as too short."""

SIGNIFICANT = 0.05
"""Corrected p below which a method differs from the baseline."""

ENOUGH_TRAININGS, ENOUGH_GROUPS = 3, 10
"""Numbers of trainings and of groups of cases below which the report cautions."""

COSTLY = 0.03
"""Score lost in-domain beyond which a method should not be used where the old site still counts."""

RULE = (
    f"First whether the trainings have learned. Below {MIN_SKILL} in-domain without style transfer, or when a longer "
    f"training scores more than {LEFT_TO_LEARN} higher in-domain, nothing can be said. Nor when nothing helps or harms "
    f"while trainings of one method differ (standard deviation over seeds, either site) by more than {MIN_SHIFT} and "
    "by more than any method differs from no style transfer (or where there seems to be hardly a shift). A method "
    "helps (or harms) when a t-test of its difference to no style transfer, which holds the chance of training and of "
    "the groups "
    f"of cases, has p < {SIGNIFICANT} after Holm's correction for all controls and stylizers. A stylizer is "
    "recommended only when it helps and the 95 % intervals of its differences to every free control (same test) lie "
    "above 0. When "
    f"nothing helps or harms and less than {MIN_SHIFT} is lost on the target, there is no shift to repair. Methods "
    "whose answer is known beforehand test the harness and are never recommended: the true rendering by its own p, the "
    "identity by that p times the number of methods, as it stands in for them."
)

Entries = Sequence[Mapping[str, Any]]


def verdict(entries: Entries) -> dict[str, Any]:
    """Return ``{"rule", "title", "sentences"}`` for the summary entries of one network and target."""
    none = next(entry for entry in entries if entry["role"] == "baseline")
    drop = none["source"]["mean"] - none["target"]["mean"]
    rule, title = _decide(none, entries, drop)
    sentences = [
        f"Without style transfer the score is {none['source']['mean']:.3f} in-domain and {none['target']['mean']:.3f} "
        f"on {none['target_name']}: {'a loss' if drop >= 0 else 'a gain'} of {abs(drop):.3f}.",
    ]
    if rule == "unfinished":
        longer = none["longer"]
        sentences.append(
            f"A training of {longer['steps']:.0f} steps scores {longer['score']:.3f} in-domain. Give --iterations "
            f"{longer['steps']:.0f} or more (in an experiment file: the budget's iterations)."
        )
    if rule == "scattered":
        sentences.append(
            f"Trainings of one method differ by {_scatter(entries):.3f} (standard deviation), the sites by "
            f"{abs(drop):.3f}, the methods from no style transfer by {_largest_effect(entries):.3f} at most. "
            "Train longer, or with more seeds or images."
        )
    if rule not in ("untrained", "unfinished"):
        sentences += [*_helped(entries), *_leads(entries), *_cost(entries), *check_sentences(entries, drop)]
    return {"rule": rule, "title": f"{title}.", "sentences": [*sentences, *_cautions(none)]}


def _decide(none: Mapping[str, Any], entries: Entries, drop: float) -> tuple[str, str]:
    if none["source"]["mean"] < MIN_SKILL:
        return "untrained", "Nothing can be said: the networks have not learned the task even in-domain; train longer"
    if none.get("longer") and none["longer"]["score"] - none["source"]["mean"] > LEFT_TO_LEARN:
        return "unfinished", "Nothing can be said yet: more steps give clearly more in-domain; train longer"
    stylizers = [entry for entry in entries if entry["role"] == "stylizer"]
    controls = [entry for entry in entries if entry["role"] == "control"]
    best = max((entry for entry in stylizers if _helps(entry)), key=_mean, default=None)
    free = max((entry for entry in controls if _helps(entry)), key=_mean, default=None)
    harmed = [entry for entry in stylizers if _harms(entry)]
    if best is not None:
        return _with_helping_stylizer(best, free)
    if free is not None:
        found = f"{_capital(free['label'])} is enough here: no stylization helped beyond chance"
        return "control", f"{found}, and {harmed[0]['label']} harms: do not use it here" if harmed else found
    if harmed:
        return "harm", f"Do not use stylization here: {harmed[0]['label']} harms"
    no_shift = drop < MIN_SHIFT and not any(_harms(entry) for entry in controls)
    if _scatter(entries) > max(MIN_SHIFT, 0.0 if no_shift else _largest_effect(entries)):
        return "scattered", "Nothing can be said: equal trainings differ by more than what is looked for; train longer"
    if no_shift:
        return "no_shift", "There is hardly a shift to repair here"
    return "none", "No method helped beyond chance"


def _with_helping_stylizer(best: Mapping[str, Any], free: Mapping[str, Any] | None) -> tuple[str, str]:
    name, against = _capital(best["label"]), best["against"]
    if not against:
        return "stylizer_unopposed", f"{name} helps here; no free control was run, so it may not be needed"
    if all(lead["low"] > 0 for lead in against):
        costly = best["source_test"]["high"] < 0 and best["source_test"]["mean"] < -COSTLY
        price = ", at a price in-domain" if costly else ""
        return "stylizer", f"{name} helps here, and more than every free control{price}"
    better = [lead for lead in against if lead["high"] < 0]
    if better:
        return "control", f"{_capital(better[0]['label'])} is enough here: it beats {best['label']}"
    if free is not None:
        return "control", f"{_capital(free['label'])} is enough here: {best['label']} is not separable from it"
    return "stylizer_alone", f"{name} helps; no free control does, but it is not separable from all of them"


def check_sentences(entries: Entries, drop: float) -> list[str]:
    """Return what the methods with known answers say about the harness itself.

    Args:
        entries: summary entries of one network and target.
        drop: score lost on the target without style transfer; without one the upper bound has nothing to gain.
    """
    sentences, methods = [], len(_compared(entries))
    for entry in entries:
        if entry["role"] == "check":
            test = entry["test"]
            # The truth is one planned comparison; the identity stands in for the methods, and gets their correction.
            gain = test["p"] < SIGNIFICANT and test["mean"] > 0
            passed = gain if entry["kind"] == "truth" else test["p"] * max(1, methods) >= SIGNIFICANT
            answer = "as it must be" if passed else "NOT as it must be"
            if entry["kind"] == "truth" and drop < MIN_SHIFT:
                answer = "there was hardly a loss to win back"
            p = f"p = {test['p']:.3f} before correction"
            sentences.append(f"Check, {entry['label']}: {signed(test)}, {p}: {answer}.")
    return sentences


def _scatter(entries: Entries) -> float:
    """Return the standard deviation between trainings of one method, pooled over methods, of the worse site."""
    deviations = []
    for seeds in ("per_seed", "source_per_seed"):
        variances = [np.var(entry[seeds], ddof=1) for entry in entries if len(entry[seeds]) > 1]
        deviations.append(float(np.sqrt(np.mean(variances))) if variances else 0.0)
    return max(deviations)


def _largest_effect(entries: Entries) -> float:
    """Return the largest difference of a control or stylizer to no style transfer, on the target."""
    return max((abs(entry["difference"]["mean"]) for entry in _compared(entries)), default=0.0)


def signed(value: Mapping[str, float]) -> str:
    """Return ``+0.123 (95 % interval +0.100 to +0.146)``."""
    return f"{value['mean']:+.3f} (95 % interval {value['low']:+.3f} to {value['high']:+.3f})"


def _compared(entries: Entries) -> Entries:
    """The methods that the correction is for."""
    return [entry for entry in entries if entry["role"] in ("control", "stylizer")]


def _helped(entries: Entries) -> list[str]:
    methods, sentences = _compared(entries), []
    corrected = f"after correction for {len(methods)} methods"
    for title, chosen in (
        (f"Better than none {corrected}", [e for e in methods if _helps(e)]),
        (f"Worse than none {corrected}", [e for e in methods if _harms(e)]),
        ("Different from none before that correction only", [e for e in methods if _hint(e)]),
    ):
        if chosen:
            texts = [f"{entry['label']} {signed(entry['test'])}" for entry in chosen]
            sentences.append(f"{title}: {'; '.join(texts)}.")
    return sentences or ["No method differs from none, not even before correction for their number."]


def _leads(entries: Entries) -> list[str]:
    sentences = []
    for entry in entries:
        if entry["role"] == "stylizer" and entry["against"]:
            best, name = entry["against"][0], _capital(entry["label"])
            sentences.append(f"{name} minus {best['label']}, the best free control: {signed(best)}.")
    return sentences


def _cost(entries: Entries) -> list[str]:
    costly = [entry for entry in _compared(entries) if entry["source_test"]["high"] < 0]
    if not costly:
        return ["In-domain no method loses, even before correction."]
    texts = [f"{entry['label']} {signed(entry['source_test'])}" for entry in costly]
    return [f"In-domain cost (before correction): {'; '.join(texts)}."]


def _cautions(none: Mapping[str, Any]) -> list[str]:
    cautions = []
    if none["seeds"] < ENOUGH_TRAININGS:
        cautions.append(
            f"Caution: {none['seeds']} training(s) per method, so the chance of training is not, or hardly, in these "
            "figures; it is often the larger one."
        )
    if none["groups"] < ENOUGH_GROUPS:
        cautions.append(
            f"Caution: {none['groups']} independent group(s) of target cases; only large differences can be seen with "
            "so few."
        )
    return cautions


def _helps(entry: Mapping[str, Any]) -> bool:
    return bool(entry["test_holm"] < SIGNIFICANT and entry["test"]["mean"] > 0)


def _harms(entry: Mapping[str, Any]) -> bool:
    return bool(entry["test_holm"] < SIGNIFICANT and entry["test"]["mean"] < 0)


def _hint(entry: Mapping[str, Any]) -> bool:
    return bool(entry["p_test"] < SIGNIFICANT <= entry["test_holm"])


def _mean(entry: Mapping[str, Any]) -> float:
    return float(entry["target"]["mean"])


def _capital(label: str) -> str:
    return label[:1].upper() + label[1:]
