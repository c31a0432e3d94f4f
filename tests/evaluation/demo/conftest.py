"""A small results dictionary, as the demo would store it, whose figures each test can bend."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_osasis.evaluation.demo.methods import methods
from nnunet_osasis.evaluation.demo.scoring import summarise

SOURCE_DICE = 0.86
CASES = 24


@pytest.fixture
def make_results():
    """``make_results(none=0.5, histogram=0.6, ...)``: mean Dice on the second scanner by method."""

    def make(*, own: bool = False, source: dict[str, float] | None = None, edge: float = 0.1, **target: float) -> dict:
        rows = methods(own_images=own)
        difficulty = np.random.default_rng(0).normal(0, 0.08, CASES)
        cases = []
        for position, method in enumerate(rows):
            wobble = np.random.default_rng(1 + position).normal(0, 0.02, (2, CASES))
            for place, (domain, mean) in enumerate(
                (
                    ("source", (source or {}).get(method.key, SOURCE_DICE)),
                    ("target", target.get(method.key, target["none"])),
                )
            ):
                values = np.clip(mean + difficulty + wobble[place] - (difficulty + wobble[place]).mean(), 0, 1)
                cases += [
                    {
                        "method": method.key,
                        "training": training,
                        "domain": domain,
                        "case": f"{domain}_{i:03d}",
                        "dice": value,
                    }
                    for training in range(2)
                    for i, value in enumerate((values + (training - 0.5) * 0.01).tolist())
                ]
        interval = {"mean": 20.0, "low": 19.0, "high": 21.0}
        fidelity = [
            {
                "method": key,
                "psnr": None if own else interval,
                "ciede2000": None if own else interval,
                "boundary_median": 0.0 if key == "none" else edge,
                "boundary_moved": 0.02,
                "images": 24,
            }
            for key in ("none", "histogram", "reinhard", "osasis")
        ]
        stage = {
            "step": "plan",
            "stage": "Planning",
            "seconds": 20.0,
            "command": "nnUNetv2_plan -d 501",
            "reused": False,
        }
        return {
            "settings": {"seed": 0, "side": 96, "own_side": 160},
            "data": {
                "kind": "own" if own else "phantom",
                "reference": "one picture <of> scanner B",
                "training": 80,
                "test_source": CASES,
                "test_target": CASES,
            },
            "methods": [{"key": method.key, "label": method.label} for method in rows],
            "cases": cases,
            **summarise(rows, cases),
            "fidelity": fidelity,
            "stages": [stage, {**stage, "step": "scores", "stage": "Scores", "command": None}],
            "machine": {"system": "Linux", "cores": 2},
            "wall_seconds": 12.0,
        }

    return make
