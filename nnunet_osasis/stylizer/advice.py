"""What a stylizer's own measurements say about its use, in words a person can act on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from nnunet_osasis.stylizer.names import FIRST_STAGE, NETWORK_READOUTS, STUDENT
from nnunet_osasis.stylizer.serialization import StylizerState

CLEAR_LEAD = 0.05
"""Lead in the closed share of a simulated shift from which another read-out is recommended."""

SMALL_SHARE = 0.1
"""Closed share of a simulated shift below which a read-out is called weak."""


def closed_shares(diagnostics: Mapping[str, Any]) -> dict[str, float]:
    """Return the share of the color difference to the truth that each read-out closed on simulated references.

    1 reaches the truth, 0 is worth no more than unchanged images, below 0 is worse. Empty where it was not measured.

    >>> shares = closed_shares({"simulated_references": {"no_transfer": 10, "moments": 12, "calibrator": 5, "mean": 8}})
    >>> {name: round(share, 2) for name, share in shares.items()}
    {'moments': -0.2, 'calibrator': 0.5, 'combined': 0.2}
    """
    simulated = diagnostics.get("simulated_references")
    values = simulated if isinstance(simulated, Mapping) else {}
    before = _number(values.get("no_transfer"))
    errors = {name: _number(values.get("mean" if name == "combined" else name)) for name in FIRST_STAGE}
    if before is None or before <= 0 or None in errors.values():
        return {}
    return {name: 1 - error / before for name, error in errors.items() if error is not None}


def advice(state: StylizerState) -> str:
    """Return one paragraph: what the default read-out is, what it is worth, and what to do."""
    readout, given = state.config.readout, _pair_is_given(state.card)
    shares = {} if given else closed_shares(state.diagnostics)  # a photographed pair is no simulated reference
    return " ".join([_nature(state, given), *_worth(readout, shares), *_outlying(state.diagnostics)])


def _nature(state: StylizerState, given: bool) -> str:
    """What the default read-out is, and whether the diffusion networks have a part in it."""
    readout = state.config.readout
    if readout in NETWORK_READOUTS:
        return f"The default read-out {readout} runs the diffusion networks on every image."
    if readout == STUDENT:
        return "The default read-out student is a small network that imitates the diffusion networks' pictures."
    if readout in FIRST_STAGE or given:
        made = "fitted to the given pair" if given and readout in ("combined", "pair") else "read from the reference"
        return f"The default read-out {readout} is a map of values, {made}: the diffusion networks have no part in it."
    return (
        f"The default read-out {readout} is a map of values fitted to the diffusion networks' pictures; "
        "they do not run on images."
    )


def _worth(readout: str, shares: Mapping[str, float]) -> list[str]:
    """What simulated references say, and what follows from it."""
    if not shares:
        return [
            f"What {readout} is worth was not measured here, as no simulated reference was tried: compare it with "
            "osasis-report before you rely on it."
        ]
    best = max(shares, key=lambda name: shares[name])
    others = ", ".join(f"{name} {_closes(share)}" for name, share in shares.items() if name != readout)
    if readout not in shares:
        return [
            f"Simulated references cannot measure {readout}. Of the maps, {others}: compare them with osasis-report "
            f"before you rely on {readout}."
        ]
    own, sentences = shares[readout], []
    sentences.append(f"On simulated shifts of your own source images it {_closes(own)}; {others}.")
    if shares[best] <= 0:
        sentences.append(
            "No read-out comes nearer to the truth than unchanged images: do not train on its images as they are. "
            "More source images or a longer calibrator (--calibrator-iterations) may help."
        )
    elif best != readout and shares[best] - own > CLEAR_LEAD:
        sentences.append(
            f"Use --readout {best}: osasis-stylize takes it, and osasis-pretrain-stylizer with --readout {best} "
            "--overwrite makes it the default."
        )
    elif own < SMALL_SHARE:
        sentences.append("That is little: compare it with osasis-report before you rely on it.")
    else:
        sentences.append(f"Keep {readout}.")
    return sentences


def _closes(share: float) -> str:
    """``closes 18 %``, or that it leads away."""
    if share < 0:
        return f"leads away from the truth (by {-share:.0%} of the shift)".replace("%", " %")
    return f"closes {100 * share:.0f} %"


def _outlying(diagnostics: Mapping[str, Any]) -> list[str]:
    agreement, simulated = diagnostics.get("agreement"), diagnostics.get("simulated_references")
    if not isinstance(agreement, Mapping) or not isinstance(simulated, Mapping):
        return []
    apart, limit = _number(agreement.get("disagreement")), _number(simulated.get("disagreement"))
    if apart is None or limit is None or apart <= limit:
        return []
    return ["The reference looks unlike anything the source shows: choose a more typical one, or several (--style)."]


def _pair_is_given(card: Mapping[str, Any]) -> bool:
    adaptation = card.get("adaptation")
    pair = adaptation.get("pair") if isinstance(adaptation, Mapping) else None
    return isinstance(pair, Mapping) and pair.get("maker") == "file"


def _number(value: Any) -> float | None:
    """A stored number; None for what is no finite one."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None
