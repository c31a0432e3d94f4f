"""From one row per case to one entry per network, target and method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_osasis.evaluation.experiment.config import Experiment
from nnunet_osasis.evaluation.experiment.data import SOURCE
from nnunet_osasis.evaluation.report.statistics import (
    gap_closed_interval,
    holm,
    mean_interval,
    paired_difference,
    training_test,
    wilcoxon_p,
)

Rows = Sequence[Mapping[str, Any]]

Groups = Mapping[str, Mapping[str, str]]
"""Group (patient, sequence) of every case, by test set and case."""


class ScoreTable:
    """The rows of an experiment, looked up as arrays ``(trainings, cases)``."""

    def __init__(self, rows: Rows) -> None:
        self._rows: dict[tuple, dict[tuple[int, str], Mapping[str, Any]]] = {}
        for row in rows:
            place = row["network"], row["method"], row["style"], row["test"]
            self._rows.setdefault(place, {})[row["seed"], row["case"]] = row

    def scores(self, network: str, method: str, style: str | None, test: str, metric: str) -> np.ndarray | None:
        """Return the scores of the trainings that have all cases, NaN where undefined; None without a training."""
        rows = self._rows.get((network, method, style, test))
        if not rows:
            return None
        cases = sorted({case for _, case in rows})
        seeds = sorted({seed for seed, _ in rows})
        whole = [seed for seed in seeds if all((seed, case) in rows for case in cases)]
        values = [[rows[seed, case][metric] for case in cases] for seed in whole]
        return np.array(values, dtype=float) if values else None  # numpy makes None a NaN

    def scores_of(self, entry: Mapping[str, Any], metric: str) -> np.ndarray:
        """Return the scores of a summary entry on its target."""
        place = entry["network"], entry["method"]
        per_style = (self.scores(*place, style, entry["target_name"], metric) for style in (entry["target_name"], None))
        return next(scores for scores in per_style if scores is not None)

    def cases(self, test: str) -> list[str]:
        """Return the names of the cases of a test set, in the order of :meth:`scores`."""
        return sorted({case for place, rows in self._rows.items() if place[3] == test for _, case in rows})


def summarise(
    experiment: Experiment, rows: Rows, groups: Groups, longer: Mapping[str, Mapping[str, float]] | None = None
) -> list[dict[str, Any]]:
    """Return one entry per network, target and method that has been trained.

    Args:
        experiment: names the networks, targets, methods and metrics.
        rows: one per network, method, style, seed, test set and case.
        groups: group of every case.
        longer: in-domain score of a longer training without style transfer, by network.

    Returns:
        Entries with the keys

        - ``target`` and ``source``: mean and interval of the first metric; ``per_seed``, ``source_per_seed``: means of
          the single trainings; ``spread``: their standard deviation on the target;
        - ``difference`` and ``source_difference``: paired, to no style transfer; ``points``: the first in hundredths;
        - ``p`` and ``p_holm``: Wilcoxon's test, plain and corrected over the controls and stylizers of one network and
          target; ``test``, ``p_test`` and ``test_holm``: :func:`training_test`, which the verdict rests on;
        - ``gap_closed``: share of the gap to the upper bound, or None;
        - ``metrics``: means of all metrics on the target over defined values; ``undefined``: number of the others;
        - ``against``: of a stylizer, its tests against every control; ``longer``: of the baseline, the in-domain score
          and the steps of a longer training.
    """
    table, first = ScoreTable(rows), experiment.metrics[0]
    entries: list[dict[str, Any]] = []
    for network in (n.name for n in experiment.networks):
        for target in (t.name for t in experiment.targets):
            block = _block(experiment, table, groups, network, target, first)
            for entry in block:
                if entry["role"] == "baseline" and longer and network in longer:
                    entry["longer"] = dict(longer[network])
            compared = [entry for entry in block if entry["role"] in ("control", "stylizer")]
            for plain, corrected in (("p", "p_holm"), ("p_test", "test_holm")):
                for entry, adjusted in zip(compared, holm([entry[plain] for entry in compared]), strict=True):
                    entry[corrected] = adjusted
            entries.extend(block)
    return entries


def _block(
    experiment: Experiment, table: ScoreTable, groups: Groups, network: str, target: str, metric: str
) -> list[dict[str, Any]]:
    target_groups = [groups[target][case] for case in table.cases(target)]
    source_groups = [groups[SOURCE][case] for case in table.cases(SOURCE)]

    def of(method: str, style: str | None, test: str, name: str = metric) -> np.ndarray | None:
        return table.scores(network, method, style, test, name)

    baseline, source_baseline = of(experiment.baseline, None, target), of(experiment.baseline, None, SOURCE)
    if baseline is None or source_baseline is None:
        return []
    bounds = [of(m.name, target, target) for m in experiment.methods if m.kind == "truth"]
    bound = next((scores for scores in bounds if scores is not None), None)
    block = []
    for method in experiment.methods:
        style = target if method.needs_reference else None
        scores, source = of(method.name, style, target), of(method.name, style, SOURCE)
        if scores is None or source is None:
            continue
        difference = paired_difference(scores, baseline, target_groups)
        test = training_test(scores, baseline, target_groups)
        closed = None
        if bound is not None and method.kind != "truth":  # of itself the bound closes everything
            closed = gap_closed_interval(scores, baseline, bound, target_groups)
        all_metrics = {name: of(method.name, style, target, name) for name in experiment.metrics}
        block.append(
            {
                "network": network,
                "target_name": target,
                "method": method.name,
                "label": method.label,
                "role": method.role,
                "kind": method.kind,
                "seeds": len(scores),
                "cases": scores.shape[1],
                "groups": len(set(target_groups)),
                "target": mean_interval(scores, target_groups),
                "source": mean_interval(source, source_groups),
                "difference": difference,
                "points": 100 * difference["mean"],
                "source_difference": paired_difference(source, source_baseline, source_groups),
                "per_seed": scores.mean(axis=1).tolist(),
                "source_per_seed": source.mean(axis=1).tolist(),
                "spread": float(scores.mean(axis=1).std(ddof=1)) if len(scores) > 1 else None,
                "p": wilcoxon_p(scores, baseline),
                "gap_closed": closed,
                "test": test,
                "p_test": test["p"],
                "source_test": training_test(source, source_baseline, source_groups),
                "metrics": {name: _defined_mean(values) for name, values in all_metrics.items()},
                "undefined": {
                    name: int(np.isnan(values).sum()) for name, values in all_metrics.items() if values is not None
                },
            }
        )
    controls = sorted((entry for entry in block if entry["role"] == "control"), key=lambda e: -e["target"]["mean"])
    for entry in block:
        if entry["role"] == "stylizer":
            own, tests = table.scores_of(entry, metric), []
            for control in controls:
                test = training_test(own, table.scores_of(control, metric), target_groups)
                tests.append({"method": control["method"], "label": control["label"], **test})
            entry["against"] = tests
    return block


def _defined_mean(values: np.ndarray | None) -> float | None:
    return None if values is None or np.isnan(values).all() else float(np.nanmean(values))
