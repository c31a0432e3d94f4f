"""The plain-words verdict: rules on the numbers, in the order in which a careful reader would apply them."""

from __future__ import annotations

from typing import Any

from nnunet_osasis.evaluation.demo.methods import CONTROLS, OSASIS, TRANSFERS

LEAST_SHIFT = 0.03  # Dice; below it there is nothing worth repairing

LEAST_SKILL = 0.5  # Dice in-domain; below it the trainings were too short or the data too few

MOVED_EDGE = 1.0  # pixels


def verdict(results: dict[str, Any]) -> dict[str, Any]:
    """``{"rule", "title", "sentences"}`` for a results dictionary.

    A method "helps" when the 95 % interval of its paired difference to no style transfer, on the second scanner, lies
    above 0; it "harms" when it lies below. Two methods are told apart by the interval of their own paired difference.
    """
    rows = {row["method"]: row for row in results["summary"]}
    helps = [method for method in TRANSFERS if rows[method.key]["difference"]["low"] > 0]
    harms = [method for method in TRANSFERS if rows[method.key]["difference"]["high"] < 0]
    best_control = max(CONTROLS, key=lambda method: rows[method.key]["target"]["mean"])
    lead = results["osasis_minus_control"][best_control.key]
    drop = rows["none"]["source"]["mean"] - rows["none"]["target"]["mean"]

    if rows["none"]["source"]["mean"] < LEAST_SKILL:
        rule, title = (
            "untrained",
            "Nothing can be said: the networks have not learned the task even on the first scanner",
        )
    elif drop < LEAST_SHIFT:
        rule, title = "no_shift", "There is hardly a shift to repair here"
    elif not helps:
        rule, title = "none", "No method helped"
    elif OSASIS not in helps:
        rule, title = "control", f"{_capital(best_control.label)} is enough here; OSASIS did not help"
    elif lead["low"] > 0:
        rule, title = "osasis", f"OSASIS helps, and more than {best_control.label}, the best free control"
    elif lead["high"] < 0:
        rule, title = "control", f"{_capital(best_control.label)} is enough here: it beats OSASIS"
    elif best_control in helps:
        rule, title = "tie", f"{_capital(best_control.label)} is enough here: OSASIS is not separable from it"
    else:
        rule, title = (
            "osasis_alone",
            f"OSASIS helps; no free control does, but OSASIS is not separable from {best_control.label}",
        )

    sentences = [
        f"Without style transfer Dice is {rows['none']['source']['mean']:.3f} on the first scanner and "
        f"{rows['none']['target']['mean']:.3f} on the second: a loss of {drop:.3f}.",
        *(_change(rows[method.key], method.label) for method in TRANSFERS),
        f"OSASIS minus {best_control.label} on the second scanner: {_signed(lead)}.",
    ]
    if harms:
        sentences.append(f"Worse than no style transfer: {', '.join(method.label for method in harms)}.")
    costly = [method.label for method in TRANSFERS if rows[method.key]["source_difference"]["high"] < 0]
    sentences.append(
        f"On the first scanner there is a cost: {', '.join(costly)} lose there."
        if costly
        else "On the first scanner no method loses beyond chance."
    )
    moved = [row["method"] for row in results["fidelity"] if (row["boundary_median"] or 0) > MOVED_EDGE]
    if moved:
        sentences.append(
            f"Warning: with {', '.join(moved)} half of the lesion edge moved by more than {MOVED_EDGE:.0f} px, so "
            "masks no longer fit the stylized images."
        )
    return {"rule": rule, "title": title + ".", "sentences": sentences}


def _change(row: dict[str, Any], label: str) -> str:
    closed = row["gap_closed"]
    share = "" if closed is None else f", which closes {closed:.0%} of the gap to the upper bound"
    return f"{_capital(label)}: {_signed(row['difference'])} on the second scanner{share}."


def _signed(interval: dict[str, float]) -> str:
    return f"{interval['mean']:+.3f} (95 % interval {interval['low']:+.3f} to {interval['high']:+.3f})"


def _capital(label: str) -> str:
    return label[:1].upper() + label[1:]
