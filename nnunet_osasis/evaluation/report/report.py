"""The report of an experiment: what was run, tables, charts, cost, provenance, and a verdict in plain words."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_osasis.evaluation.experiment.config import Experiment
from nnunet_osasis.evaluation.experiment.data import describe
from nnunet_osasis.evaluation.experiment.runner import Outcome
from nnunet_osasis.evaluation.metrics.protocol import METRICS
from nnunet_osasis.evaluation.report import figures
from nnunet_osasis.evaluation.report.document import Block, Code, Heading, Picture, Text, to_html, to_markdown
from nnunet_osasis.evaluation.report.summary import ScoreTable, summarise
from nnunet_osasis.evaluation.report.tables import cost_table, data_table, distance_table, main_table, metric_table
from nnunet_osasis.evaluation.report.verdict import RULE, verdict
from nnunet_osasis.runtime.provenance import machine
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.runtime.storage import atomic_write_bytes, sha256_of_json


def make_results(experiment: Experiment, outcome: Outcome, workspace: Path) -> dict[str, Any]:
    """Everything the report says, as JSON-ready values."""
    groups = {test: {case.name: case.group for case in cases} for test, cases in outcome.prepared.cases.items()}
    entries = summarise(experiment, outcome.rows, groups)
    verdicts = [
        {"network": network, "target": target, **verdict(block)} for (network, target), block in blocks(entries).items()
    ]
    data = outcome.prepared.report
    return {
        "experiment": experiment.to_json(),
        "experiment_sha256": experiment.sha256,
        "data": {
            **describe(outcome.prepared),
            "references": data["references"],
            "near_duplicates": data["near_duplicates"],
            "manifest_sha256": sha256_of_json(data["manifest"]),
        },
        "verdicts": verdicts,
        "rule": RULE,
        "summary": entries,
        "distances": outcome.distances,
        "styled": outcome.styled,
        "cells": [{key: value for key, value in cell.items() if key != "key"} for cell in outcome.cells],
        "stylizer_commands": [shareable(made["command"], workspace) for made in outcome.stylizers],
        "stylizer_seconds": {made["stylizer"]: made["seconds"] for made in outcome.stylizers},
        "pretrained": outcome.pretrained,
        "machine": machine(),
    }


def blocks(entries: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Summary entries by network and target."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in entries:
        found.setdefault((entry["network"], entry["target_name"]), []).append(entry)
    return found


def write_report(
    experiment: Experiment, outcome: Outcome, workspace: Path, *, command: Sequence[str], with_images: bool = True
) -> dict[str, Any]:
    """Write ``report.html``, ``report.md``, their pictures, ``results.json`` and ``rows.csv``; returns the results.

    Without ``with_images`` no picture of the data set is drawn: what is written holds figures of scores alone and may
    be shared where the images may not.
    """
    results = make_results(experiment, outcome, workspace)
    pictures = workspace / "pictures"
    for old in pictures.glob("*"):  # of an earlier run, perhaps with images where now there are to be none
        old.unlink()
    content: list[Block] = [*_verdicts(results), *_what(experiment, results)]
    table, grouped = ScoreTable(outcome.rows), blocks(results["summary"])
    for (network, target), entries in grouped.items():
        name = f"{network}_{target}"
        content += [
            Heading(f"{network}, {target}"),
            *_reasons(results, network, target),
            main_table(experiment, entries),
        ]
        radar = figures.radar(entries, pictures / f"radar_{name}.png", f"{network} on {target}")
        if radar is not None:
            figures.radar(entries, pictures / f"radar_{name}.svg", f"{network} on {target}")
        scatter = figures.scatter(entries, table, experiment.metrics[0], pictures / f"cases_{name}.png")
        content += _pictures(
            (radar, f"Metrics on {target}, means over cases and seeds."),
            (scatter, f"Every case of {target}, before and after; above the line it gained."),
        )
        content.append(metric_table(experiment, entries))
        if with_images:
            grid = figures.predictions_grid(
                entries, experiment, outcome, workspace, pictures / f"predictions_{name}.png"
            )
            content += _pictures((grid, f"Worst, median and best case of {target}, by rule; first seed."))
    for target in (t.name for t in experiment.targets):
        if with_images:
            grid = figures.styles_grid(experiment, outcome, workspace, target, pictures / f"styles_{target}.png")
            content += [
                Heading(f"Training images as {target}"),
                *_pictures((grid, "With the outlines of their masks.")),
            ]
    if results["distances"]:
        content += [Heading("Distance to the true rendering"), distance_table(experiment, results["distances"])]
    content += [Heading("Cost"), cost_table(experiment, results), *_provenance(results, shareable(command, workspace))]
    title = f"Does stylization help here? {experiment.name}"
    atomic_write_bytes(workspace / "rows.csv", rows_csv(outcome.rows).encode())
    atomic_write_json(workspace / "results.json", results)
    atomic_write_bytes(workspace / "report.md", to_markdown(title, content).encode())
    atomic_write_bytes(workspace / "report.html", to_html(title, content).encode())
    return results


def shareable(command: Sequence[str], workspace: Path) -> list[str]:
    """A command without the machine's folders: paths from the workspace's name on, others by their last name."""
    shown = []
    for word in command:
        path = Path(word)
        if path.is_absolute():
            inside = path.is_relative_to(workspace)
            word = str(path.relative_to(workspace.parent)) if inside else f".../{path.name}"
        shown.append(word)
    return shown


def rows_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line per network, method, seed, test set and case; undefined values are empty."""
    stream = io.StringIO()
    place = ["network", "method", "style", "seed", "test", "case"]
    writer = csv.DictWriter(stream, [*place, *sorted(set(rows[0]) - set(place))], lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    return stream.getvalue()


def _verdicts(results: Mapping[str, Any]) -> list[Block]:
    """The answers first, in one line each; their reasons stand above the tables."""
    return [
        Text(f"{found['network']} on {found['target']}: {found['title']}", strong=True) for found in results["verdicts"]
    ]


def _reasons(results: Mapping[str, Any], network: str, target: str) -> list[Block]:
    place = network, target
    found = next(v for v in results["verdicts"] if (v["network"], v["target"]) == place)
    return [Text(found["title"], strong=True), *(Text(sentence) for sentence in found["sentences"])]


def _what(experiment: Experiment, results: Mapping[str, Any]) -> list[Block]:
    budget, metric = experiment.budget, METRICS[experiment.metrics[0]]
    trainings = len(results["cells"])
    length = (
        f"{budget.iterations} steps of {budget.batch_size} patches of {budget.patch} px, {budget.precision}"
        if budget.engine == "light"
        else f"nnU-Net's trainers, {budget.trainer_length}"
    )
    seeds = len(experiment.seeds)
    content: list[Block] = [Heading("What was run")]
    if experiment.note:
        content.append(Text(experiment.note))
    content.append(
        Text(
            f"{trainings} trainings: {len(experiment.networks)} network(s), {len(experiment.methods)} methods, {seeds} "
            f"trainings each ({length}; images reduced to {budget.side} px). A training image is drawn in its changed "
            f"form with probability {budget.probability}. Scores are {metric.label}. Intervals are 95 % bootstrap "
            "intervals over trainings and whole groups of cases."
        )
    )
    content.append(data_table(experiment, results))
    near = results["data"]["near_duplicates"]
    if near:
        pairs = "; ".join(f"{pair['first']} and {pair['second']}" for pair in near[:5])
        content.append(Text(f"Near-duplicates across sets: {len(near)}, such as {pairs}. Look at them.", strong=True))
    else:
        content.append(Text("No image is in two sets, nor nearly the same as one of another set."))
    return content


def _provenance(results: Mapping[str, Any], command: Sequence[str]) -> list[Block]:
    facts = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    return [
        Heading("Rule of the verdict"),
        Text(RULE),
        Heading("Provenance"),
        Text(
            f"Experiment {results['experiment_sha256'][:16]}, data {results['data']['manifest_sha256'][:16]}. {facts}."
        ),
        Code(tuple(shlex.join(line) for line in (command, *results["stylizer_commands"]))),
        *_pretrained(results),
    ]


def _pretrained(results: Mapping[str, Any]) -> list[Block]:
    given = results["pretrained"]
    if given is None:
        return []
    return [
        Text(
            f"The autoencoder was pretrained elsewhere, on {given['source_images']} images "
            f"({str(given['sources_sha256'])[:16]}); that they are training images of this experiment is not checked."
        )
    ]


def _pictures(*found: tuple[Path | None, str]) -> list[Block]:
    return [Picture(f"pictures/{path.name}", path.read_bytes(), text) for path, text in found if path is not None]
