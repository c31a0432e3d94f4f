"""Step 5: what the diffusion model is worth at a size it was made for, by the project's own experiment harness.

``small`` (128 px) is pretrained on CVC-ClinicDB 1-408 and adapted to one image of CVC-ColonDB with either loss preset.
U-Nets with a pretrained encoder are then trained on the training images as each method restyles them, and tested on
ColonDB. A second experiment asks the same of a known camera, where the true rendering of every image is the bound.
Two trainings per method come first and all of them after, so that a run cut short has a result.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from book import Book
from nnunet_home import phantoms

from nnunet_osasis.evaluation.experiment.config import IMAGENET, Experiment, experiment_from_json
from nnunet_osasis.evaluation.experiment.runner import Options, run_experiment
from nnunet_osasis.evaluation.report.report import write_report
from nnunet_osasis.evaluation.report.statistics import paired_difference
from nnunet_osasis.evaluation.report.summary import ScoreTable
from nnunet_osasis.networks.imagenet import find_imagenet_weights
from nnunet_osasis.nnunet.prepare.layouts import LAYOUTS
from nnunet_osasis.nnunet.raw_dataset import write_png
from nnunet_osasis.runtime.records import atomic_write_json, read_json
from nnunet_osasis.synthetic.phantoms import render_pair, scene_seed

ENCODER = "tf_efficientnet_lite0"
PRETRAINING_SHARE = 0.44
"""Share of the step's time that pretraining takes, at most ``MOST_MINUTES``."""
MOST_MINUTES = 4.0
MAPS, DECODER = "combined", "raw"
METHODS: list[Any] = [
    "none",
    "colour_jitter",
    "pooled_reinhard",
    {"name": "maps", "kind": "osasis", "readout": MAPS},
    {"name": "decoder", "kind": "osasis", "readout": DECODER, "losses": "osasis"},
    {"name": "both", "kind": "osasis", "readout": f"{MAPS}+{DECODER}"},
]
PAPER = {"name": "decoder_paper", "kind": "osasis", "readout": DECODER, "losses": "paper"}
WORTH = (("decoder", "maps"), ("both", "maps"), ("decoder_paper", "maps"), ("maps", "pooled_reinhard"))
"""Pairs of methods whose paired difference answers the question."""


def study(book: Book) -> None:
    """Both experiments, with two trainings per method and then with five."""
    data = drawn(book.work / "data") if book.tiny else book.data
    if data is None:
        raise FileNotFoundError("the study needs --data: the folder that pack.py wrote its images to")
    settings = settings_of(book)
    weights = IMAGENET if not book.tiny and find_imagenet_weights(ENCODER) else None
    book.entries["settings"] = settings | {"encoder": ENCODER, "weights": weights or "random"}
    first = book.work / "colondb"
    for target, needs in (("colondb", 90), ("camera", 45)):
        for trainings in (1,) if book.tiny else (2, 5):
            experiment = experiment_of(target, trainings, settings, weights, tiny=book.tiny)

            def run(experiment: Experiment = experiment, target: str = target) -> dict[str, Any]:
                lender = None if target == "colondb" else first / "stylizers" / "colondb_osasis"
                return one(experiment, data, book, book.work / target, lender)

            book.once(f"{target}, {trainings} trainings each", run, needs=0 if book.tiny else needs)


def settings_of(book: Book) -> dict[str, Any]:
    """Lengths, chosen by the time at hand once: a run that goes on keeps them."""
    path = book.work / "settings.json"
    if path.is_file():
        return dict(read_json(path, what="The study's settings"))
    minutes = round(min(MOST_MINUTES, PRETRAINING_SHARE * book.left / 60), 2)
    settings = {"preset": "small", "side": 128, "pretraining_minutes": minutes, "iterations": 240, "batch_size": 16}
    if book.tiny:
        settings = {"preset": "tiny", "side": 64, "pretraining_minutes": None, "iterations": 2, "batch_size": 2}
    atomic_write_json(path, settings)
    return settings


def experiment_of(
    target: str, trainings: int, settings: dict[str, Any], weights: str | None, *, tiny: bool
) -> Experiment:
    """The experiment as the harness reads it from a file."""
    starts = list(LAYOUTS["clinicdb"].sequence_starts)

    def clinicdb(include: str, every: int = 1) -> dict[str, Any]:
        place = {"images": "polyp/clinicdb/images", "masks": "polyp/clinicdb/masks", "groups": starts}
        return place | {"include": [include], "every": every}

    if target == "colondb":
        images = {"images": "polyp/colondb/images", "masks": "polyp/colondb/masks"}
        site: dict[str, Any] = {"name": target, "set": images}
        methods = [*METHODS, PAPER]
    else:
        # drawn from a wide family by a seed that was taken before any method had been run through it
        site = {"name": target, "camera": {"seed": 1}, "reference_pool": clinicdb("409-503", 3)}
        methods = [*METHODS, "truth"]
    stylizer: dict[str, Any] = {"preset": settings["preset"], "minutes": settings["pretraining_minutes"]}
    if tiny:
        stylizer = {"preset": "tiny", "iterations": 1, "adapt_iterations": 1, "calibrator_iterations": 1}
    return experiment_from_json(
        {
            "name": f"{settings['preset']} on ClinicDB, {target}",
            "note": __doc__.split("\n\n")[0],
            "train": clinicdb("1-408"),
            "test": clinicdb("504-612"),
            "targets": [site],
            "networks": [{"name": "unet", "encoder": ENCODER, "weights": weights}],
            "methods": methods,
            "seeds": list(range(trainings)),
            "budget": {
                "side": settings["side"], "patch": settings["side"], "iterations": settings["iterations"],
                "batch_size": settings["batch_size"], "learning_rate": 1e-3, "precision": "fp32" if tiny else "bf16",
            },
            "stylizer": stylizer,
            "metrics": ["dice", "iou", "s", "mae", "hd95"],
        }
    )  # fmt: skip


def one(experiment: Experiment, data: Path, book: Book, workspace: Path, lender: Path | None) -> dict[str, Any]:
    """Run the harness and shorten its report: verdict, means, paired differences with their intervals."""
    workers = 1 if book.tiny else max(1, (os.cpu_count() or 1) - 2)
    outcome = run_experiment(experiment, data, Options(workspace, workers, (book.device,), lender, "osasis-report"))
    results = write_report(
        experiment, outcome, workspace, command=["python", "benchmarks/gpu/run.py"], with_images=False
    )
    table, first = ScoreTable(outcome.rows), experiment.metrics[0]
    entries = {entry["method"]: entry for entry in results["summary"]}
    target = experiment.targets[0].name
    groups = {case.name: case.group for case in outcome.prepared.cases[target]}
    of_cases = [groups[case] for case in table.cases(target)]
    worth = {
        f"{one} - {other}": paired_difference(
            table.scores_of(entries[one], first), table.scores_of(entries[other], first), of_cases
        )
        for one, other in WORTH
        if one in entries and other in entries
    }
    kept = ("label", "target", "source", "difference", "source_difference", "spread", "gap_closed", "p_test")
    distances = {
        entry["method"]: {name: round(float(np.mean(entry[name])), 4) for name in ("psnr", "ssim", "ciede2000")}
        for entry in outcome.distances
    }
    return {
        "verdicts": [{key: found[key] for key in ("title", "sentences")} for found in results["verdicts"]],
        "trainings": len(results["cells"]),
        "methods": {name: {key: entry.get(key) for key in kept} for name, entry in entries.items()},
        "worth": worth,
        "distances_to_truth": distances,
        "gate": {f"{one['method']}@{one['target']}": one["gate"] for one in outcome.styled},
        "stylizer_seconds": results["stylizer_seconds"],
        "seconds_per_training": round(float(np.median([cell["seconds_train"] for cell in results["cells"]])), 2),
        "seconds_per_styled_image": {one["method"]: one["seconds_per_image"] for one in outcome.styled},
        "near_duplicates": len(outcome.prepared.report["near_duplicates"]),
    }


def drawn(folder: Path, size: int = 64) -> Path:
    """A few phantoms in the folders of the real images, for ``--tiny``."""
    images, masks = phantoms(8, size)
    names = ("1", "2", "26", "51", "409", "412", "504", "529")
    for name, image, mask in zip(names, images.values(), masks.values(), strict=True):
        write_png(folder / "polyp/clinicdb/images" / f"{name}.png", image)
        write_png(folder / "polyp/clinicdb/masks" / f"{name}.png", mask * 255)
    for index in range(3):
        _, image, mask = render_pair(scene_seed("train", 50 + index), size)
        write_png(folder / "polyp/colondb/images" / f"{index}.png", image)
        write_png(folder / "polyp/colondb/masks" / f"{index}.png", mask * 255)
    return folder
