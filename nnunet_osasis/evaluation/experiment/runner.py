"""An experiment from its file to scored rows: prepare, make stylizers, style, train, score; resumable cell by cell.

The one place that opens test masks: from predicted maps to one row of metrics per case.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment import nnunet as nnunet_engine
from nnunet_osasis.evaluation.experiment import tasks as work
from nnunet_osasis.evaluation.experiment.cells import Cell, all_cells
from nnunet_osasis.evaluation.experiment.config import Experiment, MethodSpec
from nnunet_osasis.evaluation.experiment.data import Prepared, describe, prepare, test_masks
from nnunet_osasis.evaluation.experiment.light import check_network
from nnunet_osasis.evaluation.experiment.methods import configured, losses_of, make_stylizers, pretrained_card
from nnunet_osasis.evaluation.experiment.tasks import load_pictures
from nnunet_osasis.maps import distance as image_distance
from nnunet_osasis.runtime.folders import claim
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import append_jsonl, atomic_write_json, finished, write_sealed_json
from nnunet_osasis.runtime.storage import remove_stale_temporaries, sha256_of_array, sha256_of_file, sha256_of_json
from nnunet_osasis.runtime.workers import Task, run_tasks
from nnunet_osasis.stylizer.serialization import stylizer_digest

COMMAND = "osasis-report"

LOCK = ".lock"
"""Name of a workspace's lock file."""

PRELOAD = (
    "torch",
    "monai.inferers",
    "nnunetv2.training.nnUNetTrainer.nnUNetTrainer",
    "dynamic_network_architectures.architectures.unet",
)
"""Modules that every training imports: its processes get them from one server."""


@dataclass(frozen=True)
class Options:
    """How an experiment is run; none of this changes the rows, but for the kind of device.

    Attributes:
        workspace: folder of everything but the data. workers: trainings side by side. devices: shared out among them.
        pretrained: a stylizer of the same source images whose autoencoder is taken instead of pretraining one.
    """

    workspace: Path
    workers: int = 1
    devices: tuple[str, ...] = ("cpu",)
    pretrained: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What a run found: score rows, facts about styled copies and cells, distances to known truths, commands."""

    prepared: Prepared
    rows: list[dict[str, Any]]
    styled: list[dict[str, Any]]
    cells: list[dict[str, Any]]
    distances: list[dict[str, Any]]
    commands: list[list[str]]
    pretrained: dict[str, Any] | None = None


def run_experiment(
    experiment: Experiment, data: Path, options: Options, *, say: Callable[[str], None] = print
) -> Outcome:
    """Do what is not done yet and return everything.

    Raises ``OsasisError`` for unusable input, a workspace in use by another process or of another program, and work
    that failed.
    """
    claim(options.workspace, COMMAND)
    with output_lock(options.workspace, COMMAND, name=LOCK):
        for part in ("cells", "styled"):
            remove_stale_temporaries(options.workspace / part)
        return _run(experiment, data, options, say)


def _run(experiment: Experiment, data: Path, options: Options, say: Callable[[str], None]) -> Outcome:
    root, log = options.workspace, _Log(options.workspace / "log.jsonl")
    if experiment.budget.engine == "nnunet":
        nnunet_engine.check(experiment)
    say("Reading images and looking for leaks")
    prepared = prepare(experiment, data)
    if experiment.budget.engine == "light":
        for network in experiment.networks:
            check_network(network, prepared.channels, experiment.budget)
    atomic_write_json(root / "data.json", {**prepared.report, **describe(prepared)})
    near = len(prepared.report["near_duplicates"])
    if near:
        say(f"Warning: {near} pairs of images in different sets look nearly the same; they are listed in data.json.")
    log("prepared", near_duplicates=near, **describe(prepared))

    stylizers, commands = make_stylizers(
        experiment, prepared, root / "stylizers", pretrained=options.pretrained, device=options.devices[0], say=say
    )
    styled = _style_all(experiment, prepared, options, stylizers, log)
    cells = all_cells(experiment)
    if experiment.budget.engine == "nnunet":
        say("Planning and preprocessing with nnU-Net")
        nnunet_engine.plan(experiment, prepared, root / "nnunet", configured(experiment, stylizers, root / "stylizers"))
    facts = _train_all(cells, experiment, prepared, options, log)
    rows = score_all(cells, facts, experiment, prepared, root / "cells")
    log("scored", rows=len(rows))
    distances = _distances(experiment, prepared, root)
    return Outcome(prepared, rows, styled, facts, distances, commands, pretrained_card(options.pretrained))


def _style_all(
    experiment: Experiment,
    prepared: Prepared,
    options: Options,
    stylizers: dict[tuple[str, str], Path],
    log: _Log,
) -> list[dict[str, Any]]:
    tasks = []
    for method, target in styled_pairs(experiment):
        folder = None
        if method.kind == "osasis" and target is not None:
            folder = stylizers[target, losses_of(method)]
        digest = None if folder is None else stylizer_digest(folder)
        place = styled_path(options.workspace, method, target)
        tasks.append(Task(place.name, work.style, (method, prepared, target, folder, digest, place)))
    facts: dict[str, dict[str, Any]] = {}

    def done(task: Task, result: dict[str, Any]) -> None:
        facts[task.name] = result
        log("styled", name=task.name, **result)

    run_tasks(tasks, workers=options.workers, devices=("cpu",), describe="style", done=done, preload=PRELOAD)
    return [facts[task.name] for task in tasks]


def _train_all(
    cells: Sequence[Cell], experiment: Experiment, prepared: Prepared, options: Options, log: _Log
) -> list[dict[str, Any]]:
    folder, tasks = options.workspace / "cells", []
    with_copies = {(method.name, target) for method, target in styled_pairs(experiment)}
    for cell in cells:
        has_copies = (cell.method.name, cell.target) in with_copies
        styled = styled_path(options.workspace, cell.method, cell.target) if has_copies else None
        arguments = (cell, experiment, prepared, folder, styled)
        tasks.append(Task(cell.name, work.train_cell, arguments, takes_device=True))
    facts: dict[str, dict[str, Any]] = {}

    def done(task: Task, result: dict[str, Any]) -> None:
        facts[task.name] = result
        log("trained", **{key: value for key, value in result.items() if key != "losses"})

    run_tasks(tasks, workers=options.workers, devices=options.devices, describe="train", done=done, preload=PRELOAD)
    return [facts[cell.name] for cell in cells]


def score_all(
    cells: Sequence[Cell], facts: Sequence[dict[str, Any]], experiment: Experiment, prepared: Prepared, folder: Path
) -> list[dict[str, Any]]:
    """Open the test masks and score every cell; the only step that sees them."""
    masks = {test: test_masks(prepared, experiment, test) for test in prepared.tests}
    return [
        row
        for cell, fact in zip(cells, facts, strict=True)
        for row in score_cell(
            cell, folder / f"{cell.name}.npz", fact["key"], masks, experiment.metrics, experiment.tolerance
        )
    ]


def styled_pairs(experiment: Experiment) -> list[tuple[MethodSpec, str | None]]:
    """Methods that train on styled copies, with every target they make them for."""
    targets = [target.name for target in experiment.targets]
    pairs: list[tuple[MethodSpec, str | None]] = []
    for method in experiment.methods:
        if method.kind == "identity":
            pairs.append((method, None))
        elif method.needs_reference and method.kind != "truth":
            pairs += [(method, target) for target in targets]
    return pairs


def styled_path(workspace: Path, method: MethodSpec, target: str | None) -> Path:
    """Where styled copies are kept, without the ending."""
    return workspace / "styled" / (method.name if target is None else f"{method.name}@{target}")


def _distances(experiment: Experiment, prepared: Prepared, root: Path) -> list[dict[str, Any]]:
    """Distance of the unchanged and of all styled training images to the truth, for camera targets."""
    entries = []
    for target, truth in prepared.truths.items():
        versions: dict[str, list[np.ndarray]] = {"none": prepared.train}
        for method, style in styled_pairs(experiment):
            if style == target:
                stored = work.load_pictures(styled_path(root, method, target).with_suffix(".npz"))
                versions[method.name] = [stored[name] for name in prepared.train_names]
        for name, images in versions.items():
            entries.append({"target": target, "method": name, **image_distance.distances(images, truth.clean)})
    return entries


class _Log:
    """One JSON object per line: what was finished, and when."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, event: str, **values: Any) -> None:
        append_jsonl(self._path, {"time": round(time.time(), 1), "event": event, **values})


FORMAT = 1
"""Raised when a metric's definition changes, so that old scores are not reused."""

Masks = Mapping[str, Mapping[str, np.ndarray]]
"""By test set and case."""


def score_cell(
    cell: Cell, predictions: Path, prediction_key: str, masks: Masks, metrics: tuple[str, ...], tolerance: float
) -> list[dict[str, Any]]:
    """Rows ``{"network", "method", "style", "seed", "test", "case", metric...}``; kept beside the predictions.

    Undefined values (such as HD95 of an empty prediction) are None. Raises ``OsasisError`` when a case has no
    prediction or one of another size.
    """
    hashes = {test: {case: sha256_of_array(mask) for case, mask in masks[test].items()} for test in cell.tests}
    key = sha256_of_json([FORMAT, prediction_key, sha256_of_file(predictions), hashes, metrics, tolerance])
    record = predictions.with_suffix(".scores.json")
    if done := finished(record, key):
        return list(done["rows"])
    from nnunet_osasis.evaluation.metrics.protocol import choose_protocol
    from nnunet_osasis.evaluation.metrics.score import score_case

    protocol = choose_protocol("standard", tolerance=tolerance)
    maps, rows = load_pictures(predictions), []
    for test in cell.tests:
        for case, mask in masks[test].items():
            found = maps.get(f"{test}/{case}")
            if found is None or found.shape != mask.shape:
                raise OsasisError(
                    "Every test case needs a prediction of its size",
                    found=f"{None if found is None else found.shape} for {case} of {test}, {mask.shape}",
                    remedy=f"Delete {predictions} and run again.",
                )
            scores = score_case(found / 255.0, mask, protocol=protocol, metrics=metrics)
            origin = {
                "network": cell.network.name,
                "method": cell.method.name,
                "style": cell.target,
                "seed": cell.seed,
                "test": test,
                "case": case,
            }
            rows.append({**origin, **{name: _number(scores[name]) for name in metrics}})
    write_sealed_json(record, {"key": key, "rows": rows})
    return rows


def _number(value: float) -> float | None:
    return None if math.isnan(value) or math.isinf(value) else round(float(value), 6)
