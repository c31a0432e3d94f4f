"""The report of an experiment: what was run, tables, charts, cost, provenance, and a verdict in plain words."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_osasis.evaluation.experiment.config import Experiment
from nnunet_osasis.evaluation.experiment.data import describe
from nnunet_osasis.evaluation.experiment.runner import Outcome
from nnunet_osasis.evaluation.metrics.protocol import METRICS
from nnunet_osasis.evaluation.report import figures, tables
from nnunet_osasis.evaluation.report.document import Block, Code, Heading, Picture, Table, Text, to_html, to_markdown
from nnunet_osasis.evaluation.report.summary import ScoreTable, summarise
from nnunet_osasis.evaluation.report.verdict import RULE, verdict
from nnunet_osasis.runtime.escaping import csv_text
from nnunet_osasis.runtime.provenance import machine
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.runtime.storage import atomic_write_bytes, sha256_of_json

MOVED_EDGE_PX = 1.0
"""Median shift of the masks' edges, in pixels, above which the report warns."""


def make_results(experiment: Experiment, outcome: Outcome, workspace: Path) -> dict[str, Any]:
    """Return everything the report says as JSON-ready values."""
    groups = {test: {case.name: case.group for case in cases} for test, cases in outcome.prepared.cases.items()}
    entries = summarise(experiment, outcome.rows, groups, outcome.longer)
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
        "seconds": round(outcome.seconds, 1),
        "machine": machine(),
    }


def blocks(entries: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Return the summary entries by network and target."""
    by_place: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for entry in entries:
        by_place.setdefault((entry["network"], entry["target_name"]), []).append(entry)
    return by_place


def write_report(
    experiment: Experiment,
    outcome: Outcome,
    workspace: Path,
    *,
    command: Sequence[str],
    with_images: bool = True,
    title: str = "",
    limits: str = "",
) -> dict[str, Any]:
    """Write ``report.html``, ``report.md``, their pictures, ``results.json`` and ``rows.csv``; return the results.

    Args:
        experiment: what was run.
        outcome: what the runner returned.
        workspace: folder to write to.
        command: command that the report shows under "Provenance".
        with_images: whether pictures of the data set are drawn; without them the report can be shared where the images
            cannot.
        title: heading of the report; empty for one that names the experiment.
        limits: paragraph below the verdict on what the results do not show.
    """
    results = make_results(experiment, outcome, workspace)
    pictures = workspace / "pictures"
    for old in pictures.glob("*"):  # an earlier run may have drawn images that this one must not show
        old.unlink()
    content: list[Block] = [
        Text(f"{found['network']} on {found['target']}: {found['title']}", strong=True) for found in results["verdicts"]
    ]
    if limits:
        content.append(Text(limits))
    content += _what(experiment, results)
    table = ScoreTable(outcome.rows)
    for found, entries in zip(results["verdicts"], blocks(results["summary"]).values(), strict=True):
        name = f"{found['network']}_{found['target']}"
        content += [Heading(f"{found['network']}, {found['target']}"), Text(found["title"], strong=True)]
        forest = figures.forest(entries, experiment.metrics[0], pictures / f"differences_{name}.png")
        content += _picture(forest, f"What each method adds to no style transfer, on {found['target']} and in-domain.")
        content += [Text(sentence) for sentence in found["sentences"]]
        if with_images:
            pair = figures.before_after(entries, experiment, outcome, workspace, pictures / f"before_after_{name}.png")
            content += _picture(
                pair,
                f"Training images before and after, and cases of {found['target']} at the quartiles of the score "
                "without style transfer, chosen by that rule; first seed.",
            )
        content += _tables_and_charts(experiment, entries, table, found, pictures)
        if with_images:
            grid = figures.predictions_grid(
                entries, experiment, outcome, workspace, pictures / f"predictions_{name}.png"
            )
            content += _picture(grid, f"Worst, median and best case of {found['target']}, by rule; first seed.")
    content += _training_images(experiment, outcome, results, pictures if with_images else None)
    content += _cost(experiment, results)
    content += _provenance(results, shareable(command, workspace))
    title = title or f"Does stylization help here? {experiment.name}"
    atomic_write_bytes(workspace / "rows.csv", rows_csv(outcome.rows).encode())
    atomic_write_json(workspace / "results.json", results)
    atomic_write_bytes(workspace / "report.md", to_markdown(title, content).encode())
    atomic_write_bytes(workspace / "report.html", to_html(title, content).encode())
    return results


def shareable(command: Sequence[str], workspace: Path) -> list[str]:
    """Return a command without the machine's folders: paths from the workspace's name on, others by their last name."""
    shown = []
    for word in command:
        path = Path(word)
        if path.is_absolute():
            inside = path.is_relative_to(workspace)
            word = str(path.relative_to(workspace.parent)) if inside else f".../{path.name}"
        shown.append(word)
    return shown


def rows_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return one line per network, method, seed, test set and case; undefined values are empty."""
    place = ["network", "method", "style", "seed", "test", "case"]
    columns = [*place, *sorted(set(rows[0]) - set(place))]
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    table["case"] = table["case"].map(csv_text)  # the others are names by the experiment's rule
    return str(table.to_csv(index=False, lineterminator="\n"))


def _what(experiment: Experiment, results: Mapping[str, Any]) -> list[Block]:
    budget, metric = experiment.budget, METRICS[experiment.metrics[0]]
    length = (
        f"{budget.iterations} steps of {budget.batch_size} patches of {budget.patch} px, {budget.precision}"
        if budget.engine == "light"
        else f"nnU-Net's trainers, {budget.trainer_length or 'full length'}"
    )
    content: list[Block] = [Heading("What was run")]
    if experiment.note:
        content.append(Text(experiment.note))
    content += [
        Text(
            f"{len(results['cells'])} trainings: {len(experiment.networks)} network(s), {len(experiment.methods)} "
            f"methods, {len(experiment.seeds)} trainings each ({length}; images reduced to {budget.side} px). A "
            f"training image is drawn in its changed form with probability {budget.probability}. Scores are "
            f"{metric.label}. Intervals are 95 % bootstrap intervals over trainings and whole groups of cases."
        ),
        Table(tables.data_table(results)),
    ]
    near = results["data"]["near_duplicates"]
    if near:
        pairs = "; ".join(f"{pair['first']} and {pair['second']}" for pair in near[:5])
        content.append(Text(f"Near-duplicates across sets: {len(near)}, such as {pairs}. Look at them.", strong=True))
    else:
        content.append(Text("No image is in two sets, nor nearly the same as one of another set."))
    return content


def _tables_and_charts(
    experiment: Experiment,
    entries: figures.Entries,
    table: ScoreTable,
    found: Mapping[str, Any],
    pictures: Path,
) -> list[Block]:
    """The scores of one network on one target."""
    network, target, metric = found["network"], found["target"], experiment.metrics[0]
    name, radar_title = f"{network}_{target}", f"{network} on {target}"
    chart = figures.score_chart(entries, metric, pictures / f"scores_{name}.png")
    radar = figures.radar(entries, pictures / f"radar_{name}.png", radar_title)
    figures.radar(entries, pictures / f"radar_{name}.svg", radar_title)
    scatter = figures.scatter(entries, table, metric, pictures / f"cases_{name}.png")
    return [
        Table(tables.main_table(entries)),
        Table(tables.score_table(experiment, entries)),
        *_picture(chart, f"{METRICS[metric].label} in-domain and on {target}."),
        *_picture(radar, f"Metrics on {target}, means over cases and seeds."),
        *_picture(scatter, f"Every case of {target}, before and after; above the line it gained."),
        *(Table(frame) for frame in tables.metric_tables(experiment, entries)),
    ]


def _training_images(
    experiment: Experiment, outcome: Outcome, results: Mapping[str, Any], pictures: Path | None
) -> list[Block]:
    """What the methods did to the training images; ``pictures`` is None where no image may be shown."""
    content: list[Block] = []
    if pictures is not None:
        for target in (target.name for target in experiment.targets):
            grid = figures.styles_grid(experiment, outcome, pictures.parent, target, pictures / f"styles_{target}.png")
            content += [
                Heading(f"Training images in the style of {target}"),
                *_picture(grid, "With the outlines of their masks."),
            ]
    if results["styled"]:
        content += [
            Heading("What was restyled"),
            Table(tables.styled_table(experiment, results["styled"])),
            Text(
                "The structure gate lets a stylizer's image pass, blends it with the original, or keeps the original. "
                "Edge shift: how far the mask's visible edge moved along its normal, over outline points; masks stay "
                "valid only while it is small."
            ),
        ]
    moved = [record for record in results["styled"] if record["edges"] and record["edges"]["median"] > MOVED_EDGE_PX]
    if moved:
        names = ", ".join(dict.fromkeys(record["method"] for record in moved))
        content.append(
            Text(
                f"Warning: with {names} half of the mask's edge moved by more than {MOVED_EDGE_PX:.0f} px, so masks no "
                "longer fit the stylized images.",
                strong=True,
            )
        )
    if results["distances"]:
        distances = tables.distance_table(experiment, results["distances"])
        content += [Heading("Distance to the true rendering"), Table(distances)]
    return content


def _cost(experiment: Experiment, results: Mapping[str, Any]) -> list[Block]:
    made = "".join(
        f"Stylizer {name}: {'unknown' if seconds is None else f'{seconds:.0f} s'}. "
        for name, seconds in results["stylizer_seconds"].items()
    )
    duration = f"The run that wrote this report took {results['seconds']:.0f} s; finished work was kept."
    return [Heading("Cost"), Table(tables.cost_table(experiment, results)), Text(made + duration)]


def _provenance(results: Mapping[str, Any], command: Sequence[str]) -> list[Block]:
    facts = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    content: list[Block] = [
        Heading("Rule of the verdict"),
        Text(RULE),
        Heading("Provenance"),
        Text(
            f"Experiment {results['experiment_sha256'][:16]}, data {results['data']['manifest_sha256'][:16]}. {facts}."
        ),
        Code(tuple(shlex.join(line) for line in (command, *results["stylizer_commands"]))),
    ]
    if card := results["pretrained"]:
        content.append(
            Text(
                f"The autoencoder was pretrained elsewhere, on {card['source_images']} images "
                f"({str(card['sources_sha256'])[:16]}); that they are training images of this experiment is not "
                "checked."
            )
        )
    return content


def _picture(path: Path | None, caption: str) -> list[Block]:
    """A picture from its file; nothing for a chart that was not drawn."""
    return [] if path is None else [Picture(f"pictures/{path.name}", path.read_bytes(), caption)]
