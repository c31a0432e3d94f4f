"""``osasis-demo``: an experiment of the harness, by nnU-Net, on rendered phantoms or on a user's two folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.config import (
    Budget,
    Experiment,
    ImageSet,
    MethodSpec,
    NetworkSpec,
    StylizerSpec,
    Target,
)
from nnunet_osasis.evaluation.experiment.datasets import folders_of
from nnunet_osasis.evaluation.experiment.from_folders import folders_experiment
from nnunet_osasis.evaluation.experiment.runner import LOCK, Options, run_experiment
from nnunet_osasis.evaluation.report.report import write_report
from nnunet_osasis.nnunet.raw_dataset import write_png
from nnunet_osasis.runtime.folders import claim, require_apart
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import finished, write_sealed_json
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_json
from nnunet_osasis.runtime.workers import workers
from nnunet_osasis.synthetic.phantoms import render_pair, scene_seed

COMMAND = "osasis-demo"
"""Command that owns the output folder."""

METHODS = ("none", "histogram_matching", "pooled_reinhard", "osasis")
"""Kinds of methods that the demo compares; phantoms add the upper bound ``truth``."""

PHANTOM = "phantom"
"""Folder of the rendered images below the output folder."""

TITLE = "Does one-shot stylization help on the second scanner?"

LIMITS_PHANTOM = (
    "This shows that the line works, no more: the images are rendered phantoms from one seed, the network is small, "
    "the trainings are short and few. Neither the order of the methods nor the size of a gain says anything about "
    "patients, and nothing here is evidence of clinical benefit."
)

LIMITS_OWN = (
    "This is a first look at your data, no more: images were reduced in size, the split has one seed, the network is "
    "small, the trainings are short and few. Before relying on it, train at full length on several seeds. It is no "
    "evidence of clinical benefit."
)

QUICK: dict[str, Any] = {
    "training_cases": 12,
    "test_cases": 4,
    "repeats": 1,
    "side": 48,
    "own_side": 64,
    "patch": 32,
    "features": (4, 8, 8),
    "minutes_pretrain": 0.05,
    "adapt_iterations": 1,
    "calibrator_iterations": 2,
}
"""Settings with which everything runs in about two minutes; the scores then mean nothing."""


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """One demonstration.

    Attributes:
        output: folder of everything it makes.
        source: a user's own source images, a folder with ``images/`` and ``masks/``; None renders phantoms.
        target: a user's own target images, in the same form.
        source_test: own images for the in-domain test, for sources that cannot be split at random (videos, several
            images per patient); None keeps a random quarter of ``source`` for it.
        from_stylizer: a stylizer whose pretrained autoencoder is taken, so that only the adaptation is done.
        seed: seed of scenes, splits and the stylizer.
        device: torch device of every command, such as ``cpu``.
        training_cases: number of phantom scenes for training.
        test_cases: number of phantom scenes for testing, per scanner.
        repeats: trainings per method; the score on the second scanner varies much between trainings.
        side: size of the phantoms in pixels.
        own_side: longest side of own images in pixels; larger ones are reduced.
        patch: side of a training patch in pixels.
        batch: patches per batch.
        features: widths of the small U-Net, from the top.
        trainer_length: suffix of the trainers of every method alike, such as ``5epochs``.
        minutes_pretrain: time for pretraining the stylizer.
        adapt_iterations: iterations of the one-shot adaptation; the default read-out does not use it.
        calibrator_iterations: iterations of the calibrator; None takes its own default.
        gray: make one channel of own images of three.

    Raises:
        OsasisError: only one of ``source`` and ``target`` is given, or ``source_test`` without them.
    """

    output: Path
    source: Path | None = None
    target: Path | None = None
    source_test: Path | None = None
    from_stylizer: Path | None = None
    seed: int = 0
    device: str = "cpu"
    training_cases: int = 80
    test_cases: int = 32
    repeats: int = 2
    side: int = 96
    own_side: int = 160
    patch: int = 64
    batch: int = 2
    features: tuple[int, ...] = (12, 24, 48, 96)
    trainer_length: str = "5epochs"
    minutes_pretrain: float = 2.0
    adapt_iterations: int | None = 10
    calibrator_iterations: int | None = None
    gray: bool = False

    def __post_init__(self) -> None:
        if (self.source is None) != (self.target is None):
            raise OsasisError(
                "Own images need both --source and --target",
                found=f"only --{'source' if self.target is None else 'target'}",
                remedy="Each is a folder with images/ and masks/; leave both out for the phantom.",
            )
        if self.source_test is not None and self.source is None:
            raise OsasisError("--source-test goes with --source and --target", found=self.source_test)


def run_demo(
    settings: DemoSettings, *, command: Sequence[str] = (COMMAND,), say: Callable[[str], None] = print
) -> Path:
    """Run the demonstration, or what is left of it.

    Args:
        settings: what to run.
        command: command that the report shows.
        say: called with one line per stage.

    Returns:
        The path of ``report.html``.

    Raises:
        OsasisError: unusable input, an output folder with other content or in use by another process, or a command
            that failed.
    """
    root = settings.output.resolve()
    if settings.source is not None:
        data, experiment = own_experiment(settings)
        require_apart(root, folders_of(experiment, data))
    claim(root, COMMAND)
    with output_lock(root, COMMAND, name=LOCK):
        if settings.source is None:
            say("Rendering phantoms")
            data, experiment = render_phantoms(settings, root / PHANTOM), phantom_experiment(settings)
        cores = os.cpu_count() or 1
        # A training keeps one core busy, and part of another one with augmentation.
        side_by_side = max(2, cores // 2) if settings.device == "cpu" and cores > 1 else 1
        pretrained = None if settings.from_stylizer is None else settings.from_stylizer.resolve()
        options = Options(root, side_by_side, (settings.device,), pretrained, COMMAND)
        outcome = run_experiment(experiment, data, options, say=say)
        limits = LIMITS_PHANTOM if settings.source is None else LIMITS_OWN
        results = write_report(experiment, outcome, root, command=command, title=TITLE, limits=limits)
    for verdict in results["verdicts"]:
        say(verdict["title"])
    return root / "report.html"


def own_experiment(settings: DemoSettings) -> tuple[Path, Experiment]:
    """Return the folder that holds the user's images, and the experiment on them.

    Raises:
        OsasisError: folders or masks that are missing, or too few images.
    """
    if settings.source is None or settings.target is None:
        raise OsasisError("Own images need both --source and --target", found=f"{settings.source}, {settings.target}")
    folders = [settings.source.resolve(), settings.target.resolve()]
    if settings.source_test is not None:
        folders.append(settings.source_test.resolve())
    parts = [(folder / part).resolve() for folder in folders for part in ("images", "masks")]  # they may be links
    data = Path(os.path.commonpath([*(folder.parent for folder in folders), *(part.parent for part in parts)]))
    experiment = folders_experiment(
        folders[0],
        folders[1],
        data,
        source_test=None if settings.source_test is None else folders[2],
        kinds=METHODS,
        seeds=range(settings.repeats),
        split_seed=settings.seed,
        budget=_budget(settings, settings.own_side),
        stylizer=_stylizer(settings),
        gray=settings.gray,
    )
    return data, experiment


def phantom_experiment(settings: DemoSettings) -> Experiment:
    """Return the experiment on the files of :func:`render_phantoms`."""
    target = Target(name="second_scanner", set=_folder("target"), reference="reference_000", twins="twins")
    return Experiment(
        name="phantom",
        train=_folder("source"),
        test=_folder("source_test"),
        targets=(target,),
        networks=(NetworkSpec(name="unet"),),
        methods=tuple(MethodSpec(name=kind, kind=kind) for kind in (*METHODS, "truth")),
        seeds=tuple(range(settings.repeats)),
        budget=_budget(settings, settings.side),
        stylizer=_stylizer(settings),
        note=f"Phantom scenes of {settings.side} px with one or two polyps, rendered with seed {settings.seed}. Two "
        "scanners look at the same light, so that the training images are known as the second scanner shows them. "
        "Scenes for training, for the tests on either scanner, and of the reference are all different.",
    )


def render_phantoms(settings: DemoSettings, folder: Path) -> Path:
    """Render the scenes of the demo as PNG files, once, and return ``folder``.

    ``source`` has the training images of the first scanner and ``twins`` the same scenes by the second; ``source_test``
    and ``target`` have other scenes, the last one also that of the reference.
    """
    sizes = [settings.seed, settings.side, settings.training_cases, settings.test_cases]
    # A changed renderer or camera must not pass for the pictures of the last run.
    key = sha256_of_json([sizes, [sha256_of_array(part) for part in render_pair(settings.seed, 32)]])
    record = folder / "phantom.json"
    if finished(record, key) is not None:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    counts = {
        "train": settings.training_cases,
        "test_a": settings.test_cases,
        "test_b": settings.test_cases,
        "reference": 1,
    }
    cases = [(split, index) for split, count in counts.items() for index in range(count)]
    seeds = [scene_seed(split, index, base=settings.seed) for split, index in cases]
    with workers(min(4, os.cpu_count() or 1), progress=True) as run:
        views = run(partial(render_pair, size=settings.side), seeds, "scenes")
    for (split, index), (first, second, mask) in zip(cases, views, strict=True):
        place = {"train": "source", "test_a": "source_test"}.get(split, "target")
        name = f"{'reference' if split == 'reference' else place}_{index:03d}.png"
        write_png(folder / place / "images" / name, second if place == "target" else first)
        write_png(folder / place / "masks" / name, mask)
        if split == "train":
            write_png(folder / "twins" / name, second)
    write_sealed_json(record, {"key": key})
    return folder


def _folder(name: str) -> ImageSet:
    return ImageSet(images=f"{name}/images", masks=f"{name}/masks")


def _budget(settings: DemoSettings, side: int) -> Budget:
    return Budget(
        engine="nnunet",
        side=side,
        patch=settings.patch,
        batch_size=settings.batch,
        features=settings.features,
        trainer_length=settings.trainer_length,
    )


def _stylizer(settings: DemoSettings) -> StylizerSpec:
    return StylizerSpec(
        minutes=settings.minutes_pretrain,
        adapt_iterations=settings.adapt_iterations,
        calibrator_iterations=settings.calibrator_iterations,
        seed=settings.seed,
    )
