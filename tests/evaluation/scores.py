"""Score rows as an experiment would find them, around means that each test chooses."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnunet_osasis.evaluation.experiment.config import Experiment

CASES = 20
SOURCE_SCORE = 0.85


def rows_of(
    experiment: Experiment,
    target: dict[str, float],
    *,
    source: dict[str, float] | None = None,
    cases: int = CASES,
    noise: float = 0.02,
) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """Rows and groups: every method has the given mean on every target and in-domain, about which cases vary."""
    rows, tests = [], ["source", *(t.name for t in experiment.targets)]
    for position, method in enumerate(experiment.methods):
        for style in [t.name for t in experiment.targets] if method.needs_reference else [None]:
            for seed in experiment.seeds:
                for test in tests if style is None else ["source", style]:
                    mean = (source or {}).get(method.name, SOURCE_SCORE) if test == "source" else target[method.name]
                    rng = np.random.default_rng([position, seed, tests.index(test)])
                    wobble = rng.normal(0, noise, cases)
                    wobble += 0.004 * (experiment.seeds.index(seed) - (len(experiment.seeds) - 1) / 2) - wobble.mean()
                    difficulty = np.random.default_rng(tests.index(test)).normal(0, 0.05, cases)
                    for case in range(cases):
                        score = float(mean + difficulty[case] - difficulty.mean() + wobble[case])
                        rows.append(
                            {
                                "network": "unet", "method": method.name, "style": style, "seed": seed, "test": test,
                                "case": f"{case:02d}", **{metric: score for metric in experiment.metrics},
                            }
                        )  # fmt: skip
    return rows, {test: {f"{case:02d}": f"{case:02d}" for case in range(cases)} for test in tests}
