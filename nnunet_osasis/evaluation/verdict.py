"""The plain-words verdict of one network on one target: a stated rule on the summary, in a careful reader's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LEAST_SHIFT = 0.03  # score lost on the target; below it there is nothing worth repairing
LEAST_SKILL = 0.3  # score in-domain; below it the trainings were too short or the data too few
SIGNIFICANT = 0.05
ENOUGH_TRAININGS = 3
COSTLY = 0.03  # score lost in-domain beyond which a method is not to be used where the old site still counts

RULE = (
    f"First the means without style transfer: below {LEAST_SKILL} in-domain nothing can be said; a loss of less than "
    f"{LEAST_SHIFT} on the target leaves nothing to repair. A method helps (or harms) when the 95 % interval of its "
    "paired difference to no style transfer excludes 0 and Wilcoxon's p over cases, corrected for all methods (Holm), "
    f"is below {SIGNIFICANT}. A stylizer is recommended only when it helps and its interval to the best free control "
    "lies above 0. Methods whose answer is known beforehand (identity, true rendering) test the harness and are never "
    "recommended."
)

Entries = Sequence[Mapping[str, Any]]


def verdict(entries: Entries) -> dict[str, Any]:
    """``{"rule", "title", "sentences"}`` for the summary entries of one network and target."""
    none = next(entry for entry in entries if entry["role"] == "baseline")
    stylizers = [entry for entry in entries if entry["role"] == "stylizer"]
    controls = [entry for entry in entries if entry["role"] == "control"]
    drop = none["source"]["mean"] - none["target"]["mean"]
    rule, title = _decide(none, stylizers, controls, drop)
    sentences = [
        f"Without style transfer the score is {none['source']['mean']:.3f} in-domain and {none['target']['mean']:.3f} "
        f"on {none['target_name']}: {'a loss' if drop >= 0 else 'a gain'} of {abs(drop):.3f}.",
    ]
    if rule != "untrained":
        sentences += [
            *_helped(entries),
            *(_lead(entry) for entry in stylizers if "against_control" in entry),
            *_cost(entries),
            *check_sentences(entries),
        ]
    if none["seeds"] < ENOUGH_TRAININGS:
        sentences.append(
            f"Caution: {none['seeds']} training(s) per method. The intervals hold the chance in the cases, but not, or "
            "hardly, that in training, which is often the larger."
        )
    return {"rule": rule, "title": f"{title}.", "sentences": sentences}


def _decide(none: Mapping[str, Any], stylizers: Entries, controls: Entries, drop: float) -> tuple[str, str]:
    if none["source"]["mean"] < LEAST_SKILL:
        return "untrained", "Nothing can be said: the networks have not learned the task even in-domain"
    if drop < LEAST_SHIFT:
        return "no_shift", "There is hardly a shift to repair here"
    helping = [entry for entry in stylizers if _helps(entry)]
    free = [entry for entry in controls if _helps(entry)]
    best_free = max(free, key=_mean, default=None)
    best = max(helping, key=_mean, default=None)
    if best is not None and best.get("against_control", {"low": 1})["low"] > 0:
        costly = best["source_difference"]["high"] < 0 and best["source_difference"]["mean"] < -COSTLY
        price = ", at a price in-domain" if costly else ""
        return "stylizer", f"{_capital(best['label'])} helps here, and more than every free control{price}"
    if best is not None and best_free is not None:
        return "control", f"{_capital(best_free['label'])} is enough here: {best['label']} is not separable from it"
    if best is not None:
        return "stylizer_alone", f"{_capital(best['label'])} helps; no free control does, but none is separable from it"
    harmed = [entry for entry in stylizers if _harms(entry)]
    if best_free is not None:
        found = f"{_capital(best_free['label'])} is enough here: stylization did not help beyond chance"
        return "control", f"{found}; do not use it here" if harmed else found
    if harmed:
        return "harm", "Do not use stylization here: it harms"
    return "none", "No method helped beyond chance"


def check_sentences(entries: Entries) -> list[str]:
    """What the methods with known answers say about the harness itself."""
    said = []
    for entry in entries:
        if entry["role"] != "check":
            continue
        # One planned comparison each, so uncorrected for the truth; by the same rule as all others for the identity.
        gain = entry["difference"]["low"] > 0
        wanted = gain if entry["kind"] == "truth" else not (_helps(entry) or _harms(entry))
        answer = "as it must be" if wanted else "NOT as it must be"
        said.append(f"Check, {entry['label']}: {signed(entry['difference'])}: {answer}.")
    return said


def signed(value: Mapping[str, float]) -> str:
    """``+0.123 (95 % interval +0.100 to +0.146)``."""
    return f"{value['mean']:+.3f} (95 % interval {value['low']:+.3f} to {value['high']:+.3f})"


def _helped(entries: Entries) -> list[str]:
    groups: dict[str, list[str]] = {"Beyond chance better than none": [], "Beyond chance worse than none": []}
    for entry in entries:
        if entry["role"] in ("control", "stylizer"):
            text = f"{entry['label']} {signed(entry['difference'])}"
            if _helps(entry):
                groups["Beyond chance better than none"].append(text)
            elif _harms(entry):
                groups["Beyond chance worse than none"].append(text)
    found = [f"{title}: {'; '.join(texts)}." for title, texts in groups.items() if texts]
    return found or ["No method differs from none beyond chance."]


def _lead(entry: Mapping[str, Any]) -> str:
    lead = signed(entry["against_control"])
    return f"{_capital(entry['label'])} minus {entry['best_control_label']}, the best free control: {lead}."


def _cost(entries: Entries) -> list[str]:
    costly = [e for e in entries if e["role"] in ("control", "stylizer") and e["source_difference"]["high"] < 0]
    if not costly:
        return ["In-domain no method loses beyond chance."]
    texts = [f"{entry['label']} {signed(entry['source_difference'])}" for entry in costly]
    return [f"In-domain cost: {'; '.join(texts)}."]


def _helps(entry: Mapping[str, Any]) -> bool:
    return bool(entry["difference"]["low"] > 0 and entry.get("p_holm", 1) < SIGNIFICANT)


def _harms(entry: Mapping[str, Any]) -> bool:
    return bool(entry["difference"]["high"] < 0 and entry.get("p_holm", 1) < SIGNIFICANT)


def _mean(entry: Mapping[str, Any]) -> float:
    return float(entry["target"]["mean"])


def _capital(label: str) -> str:
    return label[:1].upper() + label[1:]
