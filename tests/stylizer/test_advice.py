"""A stylizer ends in a paragraph a person can act on: what its read-outs are worth, and what the networks do in it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.scripts import info
from nnunet_osasis.stylizer.advice import advice
from nnunet_osasis.stylizer.names import NETWORK_READOUTS, READOUTS


def said(readout: str = "combined", *, maker: str = "sdedit", **errors: float) -> str:
    """The paragraph for color differences after ``moments``, ``calibrator`` and their ``mean``, of 10 before."""
    simulated = {"no_transfer": 10.0, "disagreement": 5.0, "references": 32, **errors} if errors else None
    diagnostics = {"simulated_references": simulated, "agreement": {"disagreement": 1.0}}
    state: Any = SimpleNamespace(
        config=SimpleNamespace(readout=readout), card={"adaptation": {"pair": {"maker": maker}}},
        diagnostics=diagnostics,
    )  # fmt: skip
    return advice(state)


def test_a_better_read_out_is_named_with_the_option_that_takes_it() -> None:
    text = said(moments=11.0, calibrator=8.2, mean=9.8)
    assert "it closes 2 %; moments leads away from the truth (by 10 % of the shift), calibrator closes 18 %" in text
    assert "Use --readout calibrator" in text and "Keep" not in text


@pytest.mark.parametrize(
    ("errors", "what"),
    [
        ({"moments": 9.0, "calibrator": 5.2, "mean": 5.0}, "Keep combined."),
        ({"moments": 9.9, "calibrator": 9.7, "mean": 9.5}, "That is little: compare it with osasis-report"),
        ({"moments": 12.0, "calibrator": 10.1, "mean": 11.0}, "do not train on its images as they are"),
        ({}, "was not measured here"),
        ({"moments": float("nan"), "calibrator": 1.0, "mean": 1.0}, "was not measured here"),
    ],
)
def test_every_finding_ends_in_something_to_do(errors: dict[str, float], what: str) -> None:
    text = said(**errors)
    assert what in text and "Use --readout" not in text


@pytest.mark.parametrize("readout", READOUTS)
def test_the_part_of_the_diffusion_networks_is_said_for_every_read_out(readout: str) -> None:
    text = said(readout, moments=9.0, calibrator=5.2, mean=5.0)
    assert ("have no part in it" in text) == (readout in ("combined", "moments", "calibrator"))
    assert ("on every image" in text) == (readout in NETWORK_READOUTS)
    assert ("cannot measure" in text) == (readout not in ("combined", "moments", "calibrator"))


def test_a_photographed_pair_is_not_judged_by_simulated_references() -> None:
    text = said(maker="file", moments=9.0, calibrator=5.0, mean=9.5)
    assert "fitted to the given pair" in text and "Use --readout" not in text


def test_info_prints_the_paragraph_and_json_on_request(
    stylizer: OSASISStylizer, stylizer_folder: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    info.main([str(stylizer_folder)])
    text = capsys.readouterr().out
    assert text.rstrip().endswith(advice(stylizer.state)) and "diffusion networks" in text and "{" not in text
    assert len(text.splitlines()) < 10
