"""The line itself: images, nnU-Net planning, stylizer, trainings, predictions, scores, report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunet_osasis.evaluation.demo import commands
from nnunet_osasis.evaluation.demo.figures import draw_figures
from nnunet_osasis.evaluation.demo.methods import OSASIS, Method
from nnunet_osasis.evaluation.demo.own_data import fingerprint_pairs, write_own_data
from nnunet_osasis.evaluation.demo.phantom_data import write_phantom_data
from nnunet_osasis.evaluation.demo.plans import add_demo_configuration
from nnunet_osasis.evaluation.demo.report import write_texts
from nnunet_osasis.evaluation.demo.scoring import fidelity_cases, score_cases, score_fidelity, summarise
from nnunet_osasis.evaluation.demo.settings import CONFIGURATION, DemoSettings
from nnunet_osasis.evaluation.demo.steps import Step, StepBook
from nnunet_osasis.evaluation.demo.verdict import verdict
from nnunet_osasis.evaluation.demo.workspace import Workspace
from nnunet_osasis.nnunet.raw_dataset import read_images, write_images
from nnunet_osasis.runtime.folders import claim
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.provenance import machine
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.runtime.storage import atomic_write_bytes, sha256_of_array


def run_demo(settings: DemoSettings, *, say: Callable[[str], None] = print) -> Path:
    """Run the demonstration, or what is left of it; returns the path of ``report.html``.

    Raises:
        OsasisError: unusable input, an output folder with other content or in use by another process, or a command
            that failed.
    """
    workspace = Workspace(settings.output.resolve())
    claim(workspace.root, "osasis-demo")
    with output_lock(workspace.root, "osasis-demo"):
        return _run(settings, workspace, say)


def _run(settings: DemoSettings, workspace: Workspace, say: Callable[[str], None]) -> Path:
    started = time.monotonic()
    book = StepBook(workspace.steps, workspace.logs, workspace.environment(threads=commands.threads(settings)), say)
    data = book.compute("images", "Images", _data_key(settings), lambda: _write_data(settings, workspace))
    _plan(settings, workspace, book)
    book.compute("to_stylize", "Pictures to stylize", None, lambda: _collect_pictures(settings, workspace))
    rows = commands.rows(settings)
    book.run(_steps(rows, settings, workspace), at_once=commands.commands_at_once(settings))
    scores = book.compute("scores", "Scores", None, lambda: _score(rows, settings, workspace))
    results = {
        "settings": settings.to_dict(),
        "data": data,
        "methods": [{"key": method.key, "label": method.label} for method in rows],
        **scores,
        "stages": book.stages,
        "machine": machine(),
        "wall_seconds": round(time.monotonic() - started, 1),
    }
    results["verdict"] = verdict(results)
    atomic_write_json(workspace.root / "results.json", results)
    html, markdown = write_texts(results, draw_figures(results, settings, workspace))
    atomic_write_bytes(workspace.root / "report.md", markdown.encode())
    return atomic_write_bytes(workspace.root / "report.html", html.encode())


def _data_key(settings: DemoSettings) -> dict[str, Any]:
    names = ("seed", "training_cases", "test_cases", "side", "own_side")
    key: dict[str, Any] = {name: getattr(settings, name) for name in names}
    if settings.source is not None and settings.target is not None:
        folders = (settings.source, settings.target, settings.source_test)
        key["own"] = [fingerprint_pairs(folder) for folder in folders if folder is not None]
    else:
        # A changed renderer or camera must not pass for the pictures of the last run.
        from nnunet_osasis.synthetic.phantoms import render_pair

        key["phantom"] = [sha256_of_array(part) for part in render_pair(settings.seed, 32)]
    return key


def _write_data(settings: DemoSettings, workspace: Workspace) -> dict[str, Any]:
    for folder in (workspace.raw, workspace.preprocessed, workspace.results, workspace.root / "data"):
        if folder.exists():
            shutil.rmtree(folder)
    return (write_own_data if settings.own_images else write_phantom_data)(settings, workspace)


def _plan(settings: DemoSettings, workspace: Workspace, book: StepBook) -> None:
    folders = [workspace.preprocessed / name for name in dict.fromkeys(m.dataset[1] for m in commands.rows(settings))]
    result = folders[-1] / "nnUNetPlans_2d"
    book.run([Step("plan", "nnU-Net planning and preprocessing", commands.plan_command(settings), result)])
    small = [
        settings.patch,
        settings.batch,
        settings.features,
        settings.validation_cases,
        settings.repeats,
        settings.seed,
    ]

    def add() -> None:
        for folder in folders:
            add_demo_configuration(folder, settings, workspace.reference)

    book.compute("configuration", f"Configuration {CONFIGURATION}", [*small, str(workspace.root)], add)


def _steps(rows: tuple[Method, ...], settings: DemoSettings, workspace: Workspace) -> list[Step]:
    """Everything that takes long. Only OSASIS waits for the stylizer, which is therefore started first."""
    stylizer = Step(
        "stylizer",
        "Stylizer: pretraining and one-shot adaptation",
        commands.stylizer_command(settings, workspace),
        workspace.stylizer / "stylizer.json",
    )
    trainings, predictions = [], []
    for method in sorted(rows, key=lambda method: method == OSASIS):
        for fold in range(settings.repeats):
            folder = workspace.results / method.results_folder(settings.trainer_length, CONFIGURATION)
            training = Step(
                f"train_{method.key}_{fold}",
                f"{len(rows) * settings.repeats} trainings",
                commands.training_command(method, fold, settings),
                folder / f"fold_{fold}" / "checkpoint_final.pth",
                after=(stylizer.name,) if method == OSASIS else (),
            )
            prediction = Step(
                f"predict_{method.key}_{fold}",
                "Predictions on both scanners",
                commands.prediction_command(method, fold, settings, workspace),
                workspace.predictions(method.key, fold),
                after=(training.name,),
                clear=True,
            )
            trainings.append(training)
            predictions.append(prediction)
    stylize = Step(
        "stylize",
        "Stylized pictures",
        commands.stylize_command(settings, workspace),
        workspace.stylized,
        after=(stylizer.name,),
        clear=True,
    )
    return [stylizer, *trainings, *predictions, stylize]


def _collect_pictures(settings: DemoSettings, workspace: Workspace) -> None:
    """Training pictures for the measurements; for the phantom also the source scanner's views of target test scenes."""
    if workspace.to_stylize.exists():
        shutil.rmtree(workspace.to_stylize)
    originals = read_images(workspace.training_images)
    chosen = {case: originals[case] for case in fidelity_cases(settings, workspace)}
    write_images(workspace.to_stylize, chosen | read_images(workspace.source_views))


def _score(rows: tuple[Method, ...], settings: DemoSettings, workspace: Workspace) -> dict[str, Any]:
    cases = score_cases(rows, settings, workspace)
    return {"cases": cases, **summarise(rows, cases), "fidelity": score_fidelity(settings, workspace)}
