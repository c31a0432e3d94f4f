"""An experiment from its file to scored rows: prepare, make stylizers, style, train, score; resumable cell by cell."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment import light, nnunet, tasks
from nnunet_osasis.evaluation.experiment.cells import STRETCH, Cell, all_cells, longer_cells
from nnunet_osasis.evaluation.experiment.config import Experiment, MethodSpec
from nnunet_osasis.evaluation.experiment.data import Prepared, describe, prepare, test_masks
from nnunet_osasis.evaluation.experiment.methods import configured, losses_of, make_stylizers, pretrained_card
from nnunet_osasis.maps import distance as image_distance
from nnunet_osasis.runtime.command import duration
from nnunet_osasis.runtime.folders import claim
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import append_jsonl, atomic_write_json, finished, write_sealed_json
from nnunet_osasis.runtime.storage import remove_stale_temporaries, sha256_of_array, sha256_of_file, sha256_of_json
from nnunet_osasis.runtime.workers import Task, run_tasks
from nnunet_osasis.stylizer.serialization import stylizer_digest

COMMAND = "osasis-report"
"""Command that owns a workspace, unless the options name another one."""

LOCK = ".lock"
"""Name of a workspace's lock file."""

PRELOAD = (
    "torch",
    "monai.inferers",
    "nnunetv2.training.nnUNetTrainer.nnUNetTrainer",
    "dynamic_network_architectures.architectures.unet",
)
"""Modules that every training imports: its processes get them from one server."""

NNUNET_STEPS, NNUNET_EPOCHS = 250, 1000
"""Training steps of an epoch of nnU-Net's trainers, and the epochs of those without a length in their name."""

SCORES_FORMAT = 1
"""Version of the scores; raised when a metric's definition changes, so that old ones are not reused."""


@dataclass(frozen=True)
class Options:
    """How an experiment is run; none of this changes the rows, but for the kind of device.

    Attributes:
        workspace: folder of everything but the data.
        workers: number of trainings side by side.
        devices: torch devices that the trainings are shared out among.
        pretrained: a stylizer of the same source images whose autoencoder is taken instead of pretraining one.
        command: command that owns the workspace.
    """

    workspace: Path
    workers: int = 1
    devices: tuple[str, ...] = ("cpu",)
    pretrained: Path | None = None
    command: str = COMMAND


@dataclass(frozen=True)
class Outcome:
    """Everything that a run returns.

    Attributes:
        prepared: the images of the experiment.
        rows: scores, one row per cell, test set and case.
        styled: records of the styled copies, with the decisions of the structure gate.
        cells: records of the trainings.
        distances: distances of styled training images to the known truth.
        stylizers: records of the stylizers that were made: command and seconds.
        pretrained: card of the stylizer that lent its autoencoder, or None.
        seconds: duration of this run; what was kept from an earlier one costs nothing.
        longer: ``{"steps", "score"}`` of the longer training of each network, in-domain and without style transfer.
    """

    prepared: Prepared
    rows: list[dict[str, Any]]
    styled: list[dict[str, Any]]
    cells: list[dict[str, Any]]
    distances: list[dict[str, Any]]
    stylizers: list[dict[str, Any]]
    pretrained: dict[str, Any] | None = None
    seconds: float = 0.0
    longer: dict[str, dict[str, float]] = field(default_factory=dict)


def run_experiment(
    experiment: Experiment, data: Path, options: Options, *, say: Callable[[str], None] = print
) -> Outcome:
    """Do what is not done yet and return everything.

    Args:
        experiment: what to run.
        data: folder that the experiment's paths start from.
        options: workspace and devices.
        say: called with one line per stage.

    Raises:
        OsasisError: unusable input, a workspace in use by another process or of another program, or work that failed.
    """
    claim(options.workspace, options.command)
    with output_lock(options.workspace, options.command, name=LOCK):
        for part in ("cells", "styled"):
            remove_stale_temporaries(options.workspace / part)
        return _run(experiment, data, options, say)


def _run(experiment: Experiment, data: Path, options: Options, say: Callable[[str], None]) -> Outcome:
    root, began = options.workspace, time.perf_counter()

    def log(event: str, **values: Any) -> None:
        append_jsonl(root / "log.jsonl", {"time": round(time.time(), 1), "event": event, **values})

    if experiment.budget.engine == "nnunet":
        nnunet.check(experiment)
    say("Reading images and looking for leaks")
    prepared = prepare(experiment, data)
    if experiment.budget.engine == "light":
        for network in experiment.networks:
            light.check_network(network, prepared.channels, experiment.budget)
    atomic_write_json(root / "data.json", {**prepared.report, **describe(prepared)})
    near = len(prepared.report["near_duplicates"])
    if near:
        say(f"Warning: {near} pairs of images in different sets look nearly the same; they are listed in data.json.")
    log("prepared", near_duplicates=near, **describe(prepared))
    for line in plan_lines(experiment, prepared, options):
        say(line)

    stylizers, made = make_stylizers(
        experiment, prepared, root / "stylizers", pretrained=options.pretrained, device=options.devices[0], say=say
    )
    styled = _style_all(experiment, prepared, options, stylizers, log)
    engine: tasks.Engine = light.train_and_predict
    if experiment.budget.engine == "nnunet":
        say("Planning and preprocessing with nnU-Net")
        nnunet.plan(experiment, prepared, root, configured(experiment, stylizers, root / "stylizers"))
        engine = nnunet.train_and_predict
    cells, longer = all_cells(experiment), longer_cells(experiment)
    records = _train_all([*longer, *cells], engine, experiment, prepared, options, log)
    of_longer, records = records[: len(longer)], records[len(longer) :]
    rows = score_all(cells, records, experiment, prepared, root / "cells")
    more = _in_domain(longer, score_all(longer, of_longer, experiment, prepared, root / "cells"), experiment)
    log("scored", rows=len(rows))
    distances = _distances(experiment, prepared, root)
    card, seconds = pretrained_card(options.pretrained), time.perf_counter() - began
    return Outcome(prepared, rows, styled, records, distances, made, card, seconds, more)


def _in_domain(
    cells: Sequence[Cell], rows: Sequence[Mapping[str, Any]], experiment: Experiment
) -> dict[str, dict[str, float]]:
    """Return the steps and the mean in-domain score of longer trainings, by network."""
    metric, steps = experiment.metrics[0], experiment.budget.iterations
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["network"], []).append(row[metric])
    return {
        cell.network.name: {"steps": steps * cell.stretch, "score": float(np.mean(scores[cell.network.name]))}
        for cell in cells
    }


def plan_lines(experiment: Experiment, prepared: Prepared, options: Options) -> list[str]:
    """Return what will be trained, and how long that takes about: a step of each network is timed."""
    cells, longer, budget = all_cells(experiment), longer_cells(experiment), experiment.budget
    is_light = budget.engine == "light"
    epochs = re.match(r"\d+", budget.trainer_length)
    steps = budget.iterations if is_light else NNUNET_STEPS * int(epochs[0] if epochs else NNUNET_EPOCHS)
    lines = [
        f"Plan: {len(cells)} trainings of {steps} steps ({len(experiment.networks)} network(s), "
        f"{len(experiment.methods)} methods, {len(experiment.targets)} target(s), {len(experiment.seeds)} trainings "
        f"each), {options.workers} side by side on {len(prepared.train)} training images."
    ]
    if longer:
        lines.append(
            f"  And {len(longer)} of {STRETCH} times the steps, without style transfer: whether more steps would give "
            "more."
        )
    if not budget.features:
        return [*lines, "  nnU-Net plans the network itself, so how long a training takes is known after the first."]
    threads, workers = torch.get_num_threads(), min(options.workers, len(cells))
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    device = options.devices[0]
    costs = {
        network.name: light.seconds_per_step(network, prepared.channels, budget, device)
        for network in experiment.networks
    }
    torch.set_num_threads(threads)
    spent = sum(costs[cell.network.name] * cell.stretch for cell in [*cells, *longer]) * steps
    kept = sum((options.workspace / "cells" / f"{cell.name}.json").is_file() for cell in [*cells, *longer])
    finished_text = f" ({kept} are there from an earlier run)" if kept else ""
    lines.append(f"  The trainings take about {duration(spent / workers)} here{finished_text}; stylizers come first.")
    return lines


def _style_all(
    experiment: Experiment,
    prepared: Prepared,
    options: Options,
    stylizers: Mapping[tuple[str, str], Path],
    log: Callable[..., None],
) -> list[dict[str, Any]]:
    """Stylize the training images for every method and target; return the records in that order."""
    queue = []
    for method, target in styled_pairs(experiment):
        folder = None
        if method.kind == "osasis" and target is not None:
            folder = stylizers[target, losses_of(method)]
        digest = None if folder is None else stylizer_digest(folder)
        output = styled_path(options.workspace, method, target)
        arguments = (method, prepared, target, folder, digest, output)
        queue.append(Task(output.name, tasks.style, arguments, takes_device=True))
    records: dict[str, dict[str, Any]] = {}

    def done(task: Task, record: dict[str, Any]) -> None:
        records[task.name] = record
        log("styled", name=task.name, **record)

    run_tasks(queue, workers=options.workers, devices=options.devices, describe="style", done=done, preload=PRELOAD)
    return [records[task.name] for task in queue]


def _train_all(
    cells: Sequence[Cell],
    engine: tasks.Engine,
    experiment: Experiment,
    prepared: Prepared,
    options: Options,
    log: Callable[..., None],
) -> list[dict[str, Any]]:
    """Train and predict all cells; return their records in the order of the cells."""
    with_copies = {(method.name, target) for method, target in styled_pairs(experiment)}
    queue = []
    for cell in cells:
        has_copies = (cell.method.name, cell.target) in with_copies
        styled = styled_path(options.workspace, cell.method, cell.target) if has_copies else None
        arguments = (cell, experiment, prepared, options.workspace, styled, engine)
        queue.append(Task(cell.name, tasks.train_cell, arguments, takes_device=True))
    records: dict[str, dict[str, Any]] = {}

    def done(task: Task, record: dict[str, Any]) -> None:
        records[task.name] = record
        log("trained", **{key: value for key, value in record.items() if key != "losses"})

    run_tasks(queue, workers=options.workers, devices=options.devices, describe="train", done=done, preload=PRELOAD)
    return [records[cell.name] for cell in cells]


def styled_pairs(experiment: Experiment) -> list[tuple[MethodSpec, str | None]]:
    """Return the methods that train on styled copies, with every target they make them for."""
    targets = [target.name for target in experiment.targets]
    pairs: list[tuple[MethodSpec, str | None]] = []
    for method in experiment.methods:
        if method.kind == "identity":
            pairs.append((method, None))
        elif method.needs_reference and method.kind != "truth":
            pairs += [(method, target) for target in targets]
    return pairs


def styled_path(workspace: Path, method: MethodSpec, target: str | None) -> Path:
    """Return where a method's styled copies are kept, without the suffix."""
    return workspace / "styled" / (method.name if target is None else f"{method.name}@{target}")


def _distances(experiment: Experiment, prepared: Prepared, root: Path) -> list[dict[str, Any]]:
    """Return the distances of the unchanged and all styled training images to the truth, for targets that have one."""
    entries = []
    for target, truth in prepared.truths.items():
        versions: dict[str, list[np.ndarray]] = {experiment.baseline: prepared.train}
        for method, style in styled_pairs(experiment):
            if style == target:
                stored = tasks.load_pictures(styled_path(root, method, target).with_suffix(".npz"))
                versions[method.name] = [stored[name] for name in prepared.train_names]
        for name, images in versions.items():
            entries.append({"target": target, "method": name, **image_distance.distances(images, truth.clean)})
    return entries


def score_all(
    cells: Sequence[Cell], records: Sequence[dict[str, Any]], experiment: Experiment, prepared: Prepared, folder: Path
) -> list[dict[str, Any]]:
    """Open the test masks and score every cell; the only step that sees them.

    Args:
        cells: the trainings.
        records: their records, in the same order.
        experiment: names the metrics.
        prepared: its images.
        folder: folder of the predicted maps.
    """
    masks = {test: test_masks(prepared, experiment, test) for test in prepared.tests}
    rows = []
    for cell, record in zip(cells, records, strict=True):
        maps = folder / f"{cell.name}.npz"
        rows += score_cell(cell, maps, record["key"], masks, experiment.metrics, experiment.tolerance)
    return rows


def score_cell(
    cell: Cell,
    predictions: Path,
    prediction_key: str,
    masks: Mapping[str, Mapping[str, np.ndarray]],
    metrics: tuple[str, ...],
    tolerance: float,
) -> list[dict[str, Any]]:
    """Score one cell, or read its scores from the file beside its predictions.

    Args:
        cell: the training.
        predictions: file of its maps.
        prediction_key: key of its record.
        masks: true masks ``(H, W)`` by test set and case.
        metrics: names of the metrics.
        tolerance: tolerance of the normalized surface distance, in pixels.

    Returns:
        Rows ``{"network", "method", "style", "seed", "test", "case", metric...}``; undefined values (such as HD95 of
        an empty prediction) are None.

    Raises:
        OsasisError: a case has no prediction, or one of another size.
    """
    hashes = {test: {case: sha256_of_array(mask) for case, mask in masks[test].items()} for test in cell.tests}
    key = sha256_of_json([SCORES_FORMAT, prediction_key, sha256_of_file(predictions), hashes, metrics, tolerance])
    record = predictions.with_suffix(".scores.json")
    if done := finished(record, key):
        return list(done["rows"])
    from nnunet_osasis.evaluation.metrics.protocol import choose_protocol
    from nnunet_osasis.evaluation.metrics.score import score_case

    protocol = choose_protocol("standard", tolerance=tolerance)
    maps, rows = tasks.load_pictures(predictions), []
    for test in cell.tests:
        for case, mask in masks[test].items():
            probability = maps.get(f"{test}/{case}")
            if probability is None or probability.shape != mask.shape:
                raise OsasisError(
                    "Every test case needs a prediction of its size",
                    found=f"{None if probability is None else probability.shape} for {case} of {test}, {mask.shape}",
                    remedy=f"Delete {predictions} and run again.",
                )
            scores = score_case(probability / 255.0, mask, protocol=protocol, metrics=metrics)
            origin = {
                "network": cell.network.name,
                "method": cell.method.name,
                "style": cell.target,
                "seed": cell.seed,
                "test": test,
                "case": case,
            }
            rows.append({**origin, **{name: _finite(scores[name]) for name in metrics}})
    write_sealed_json(record, {"key": key, "rows": rows})
    return rows


def _finite(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None
