"""The numbers of PySODMetrics, to 1e-6: whoever compares with published tables must get the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_osasis.evaluation.metrics import PYSODMETRICS, choose_protocol, score_case

GOLDEN = Path(__file__).parent / "golden"
VALUES = json.loads((GOLDEN / "values.json").read_text())
CASES = sorted(VALUES["normalized"])


def pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(GOLDEN / "inputs.npz") as arrays:
        return arrays[f"{name}_prediction"] / 255, arrays[f"{name}_truth"] > 128


@pytest.mark.parametrize("kind", ["normalized", "as_they_are"])
@pytest.mark.parametrize("name", CASES)
def test_every_number_is_pysodmetrics_own(name: str, kind: str) -> None:
    expected = VALUES[kind][name]
    protocol = choose_protocol("pysodmetrics", normalize=kind == "normalized")
    found = score_case(*pair(name), protocol=protocol, metrics=expected)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "name", [n for n in CASES if n not in ("empty_truth", "both_empty", "full_truth", "both_full")]
)
def test_the_standard_protocol_differs_only_in_normalisation(name: str) -> None:
    expected = VALUES["as_they_are"][name]
    assert score_case(*pair(name), metrics=expected) == pytest.approx(expected, abs=1e-6)


def test_the_values_say_what_made_them() -> None:
    assert VALUES["made_with"]["pysodmetrics"] == "1.6.2"
    assert PYSODMETRICS.normalize
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 200_000
