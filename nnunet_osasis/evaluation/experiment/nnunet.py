"""The nnU-Net engine: every cell is ``nnUNetv2_train`` and ``nnUNetv2_predict``; trainings are folds, not seeds."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import time
import zipfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.cells import Cell, all_cells
from nnunet_osasis.evaluation.experiment.config import Budget, Experiment
from nnunet_osasis.evaluation.experiment.data import Prepared
from nnunet_osasis.evaluation.experiment.methods import channels_last
from nnunet_osasis.nnunet.raw_dataset import small_configuration, write_images, write_png, write_raw_dataset
from nnunet_osasis.runtime.children import child_command
from nnunet_osasis.runtime.records import atomic_write_json, finished, read_json, write_sealed_json
from nnunet_osasis.runtime.storage import sha256_of_json

BASE = "report"
"""Configuration in the plans of every training that stylizes nothing."""

SOURCE_ID = 501
"""nnU-Net's number of the source dataset; the true renderings of the targets follow."""

VALIDATION_CASES = 4
"""Largest number of training cases that nnU-Net validates on, per fold."""

LOG_LINES = 25
"""Number of lines from the end of a failed command's log that its error message shows."""

TRAINERS = {
    ("unet", "none"): "nnUNetTrainer",
    ("unet", "truth"): "nnUNetTrainer",
    ("unet", "da5"): "nnUNetTrainerDA5",
    ("unet", "gin"): "nnUNetTrainerGIN",
    ("unet", "fda"): "nnUNetTrainerFDA",
    ("unet", "histogram_matching"): "nnUNetTrainerHistogramMatching",
    ("unet", "pooled_reinhard"): "nnUNetTrainerReinhard",
    ("unet", "osasis"): "nnUNetTrainerOSASIS",
    ("unetpp", "none"): "nnUNetTrainerUNetPlusPlus",
    ("unetpp", "truth"): "nnUNetTrainerUNetPlusPlus",
    ("unetpp", "osasis"): "nnUNetTrainerOSASISUNetPlusPlus",
    ("pranet", "none"): "nnUNetTrainerPraNet",
    ("pranet", "truth"): "nnUNetTrainerPraNet",
    ("pranet", "osasis"): "nnUNetTrainerOSASISPraNet",
}
"""Trainer by network and kind of method, without its length."""


def trainer_of(cell: Cell, budget: Budget) -> str:
    """Return the name of the cell's trainer.

    Raises:
        OsasisError: nnU-Net has no such trainer, or one that does not take the method's or network's options.
    """
    trainer = TRAINERS.get((cell.network.name, cell.method.kind))
    if trainer is None or (cell.network.monai or cell.network.encoder) is not None:
        known = sorted({kind for network, kind in TRAINERS if network == cell.network.name})
        raise OsasisError(
            f"The nnU-Net engine needs a trainer for {cell.method.name} with {cell.network.name}",
            found="none",
            remedy=f"It has {', '.join(known) or 'no such network'}; the light engine has all of them.",
        )
    others = cell.method.parameters.keys() - {"strength", "losses", "readout"}
    if others or cell.network.arguments or len(cell.method.parts) > 1:
        raise OsasisError(
            "The nnU-Net engine takes methods and networks as its trainers make them",
            found=f"parameters {dict(cell.method.parameters)}, arguments {dict(cell.network.arguments)}",
            remedy="Leave them out, or use the light engine.",
        )
    name = f"{trainer}_{budget.trainer_length}" if budget.trainer_length else trainer
    _require_trainer(name)
    return name


@cache
def _require_trainer(name: str) -> None:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        with redirect_stdout(io.StringIO()):  # it prints where it looks
            recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise OsasisError(
            "Every trainer must exist in the length asked for",
            found=f"no {name}",
            remedy='The trainer_length "10epochs" and "" (the full length) are there for all of the U-Net\'s.',
        ) from error


def check(experiment: Experiment) -> None:
    """Raise ``OsasisError``, before anything is trained, if a cell has no trainer."""
    for cell in all_cells(experiment):
        trainer_of(cell, experiment.budget)


def dataset_of(cell: Cell, experiment: Experiment) -> tuple[int, str]:
    """Return number and folder name of the cell's dataset: the source's, or a target's true rendering of it."""
    if cell.method.kind != "truth":
        return SOURCE_ID, f"Dataset{SOURCE_ID}_Source"
    number = SOURCE_ID + 1 + [target.name for target in experiment.targets].index(cell.target or "")
    return number, f"Dataset{number}_Truth"


def configuration_of(cell: Cell) -> str:
    """Return the name of the cell's configuration in the plans."""
    return BASE if cell.target is None or cell.method.kind == "truth" else f"{BASE}_{cell.method.name}_{cell.target}"


def plan(experiment: Experiment, prepared: Prepared, root: Path, stylizers: dict[str, Path]) -> None:
    """Write the raw datasets, let nnU-Net plan and preprocess them once, and add the configurations.

    Args:
        experiment: what will be trained.
        prepared: its images.
        root: workspace of the experiment; nnU-Net's three folders are made in ``root/nnunet``.
        stylizers: stylizer folder by ``method@target``, saved with the read-out that the method uses.
    """
    home, cells = root / "nnunet", all_cells(experiment)
    sets = {SOURCE_ID: (f"Dataset{SOURCE_ID}_Source", prepared.train, prepared.train_masks)}
    for cell in cells:
        if cell.method.kind == "truth":
            number, name = dataset_of(cell, experiment)
            truth = prepared.truths[cell.target or ""]
            sets[number] = name, truth.pictures, truth.masks
    case_names = [f"train_{i:04d}" for i in range(len(prepared.train))]
    folds = _folds(case_names, len(experiment.seeds))
    configurations = _configurations(experiment, prepared, home, stylizers)
    for number, (name, images, masks) in sets.items():
        truths = {target: truth.sha256 for target, truth in prepared.truths.items()}
        record, key = home / f"{name}.json", sha256_of_json([prepared.sha256(), number, truths])
        if finished(record, key) is None:
            shutil.rmtree(home / "nnUNet_raw" / name, ignore_errors=True)
            shutil.rmtree(home / "nnUNet_preprocessed" / name, ignore_errors=True)
            pictures = {case: channels_last(image) for case, image in zip(case_names, images, strict=True)}
            labels = dict(zip(case_names, masks, strict=True))
            write_raw_dataset(home / "nnUNet_raw" / name, pictures, labels, foreground="foreground")
            command = ["nnUNetv2_plan_and_preprocess", "-d", str(number), "-c", "2d", "-np", "2", "-npfp", "2"]
            _run(command, home, home / "logs" / f"plan_{number}.log", device="cpu", threads=2)
            write_sealed_json(record, {"key": key})
        _add_configurations(home / "nnUNet_preprocessed" / name, experiment.budget, configurations, folds)


def train_and_predict(
    cell: Cell,
    experiment: Experiment,
    prepared: Prepared,
    *,
    styled: Path | None,
    root: Path,
    key: str,
    device: str,
    threads: int,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train and predict a cell by nnU-Net's commands; the nnU-Net engine, see :class:`tasks.Engine`.

    The trainers stylize by themselves: ``styled`` is not read. An interrupted training continues, one of another
    ``key`` is done anew.

    Raises:
        OsasisError: a command failed; the message holds the end of its log.
    """
    home, fold = root / "nnunet", experiment.seeds.index(cell.seed)
    trainer, (number, dataset) = trainer_of(cell, experiment.budget), dataset_of(cell, experiment)
    configuration, log = configuration_of(cell), home / "logs" / f"{cell.name}.log"
    model = home / "nnUNet_results" / dataset / f"{trainer}__nnUNetPlans__{configuration}" / f"fold_{fold}"
    place = ["-tr", trainer, "-device", device.split(":")[0]]
    marker, seconds = model / "osasis_cell.json", 0.0
    if finished(marker, key) is None:
        shutil.rmtree(model, ignore_errors=True)
        write_sealed_json(marker, {"key": key})
    if not is_whole_checkpoint(model / "checkpoint_final.pth"):
        (model / "checkpoint_final.pth").unlink(missing_ok=True)
        proceed = ["--c"] if is_whole_checkpoint(model / "checkpoint_latest.pth") else []
        train = ["nnUNetv2_train", str(number), configuration, str(fold), *place, *proceed]
        seconds = _run(train, home, log, device=device, threads=threads)
    images, output = home / "tests" / cell.name, home / "predictions" / cell.name
    for folder in (images, output):
        shutil.rmtree(folder, ignore_errors=True)
    cases = [(test, case) for test in cell.tests for case in prepared.tests[test]]
    names = {f"test_{i:04d}": case for i, case in enumerate(cases)}
    write_images(images, {name: channels_last(prepared.tests[test][case]) for name, (test, case) in names.items()})
    predict = ["nnUNetv2_predict", "-i", str(images), "-o", str(output), "-d", str(number), "-c", configuration]
    predict += ["-f", str(fold), *place, "--save_probabilities", "-npp", "1", "-nps", "1"]
    seconds_predict = _run(predict, home, log.with_suffix(".predict.log"), device=device, threads=threads)
    maps = {}
    for name, (test, case) in names.items():
        with np.load(output / f"{name}.npz", allow_pickle=False) as stored:
            probability = stored["probabilities"][1]
        maps[f"{test}/{case}"] = np.rint(probability.reshape(probability.shape[-2:]) * 255).astype(np.uint8)
    for folder in (images, output):
        shutil.rmtree(folder)
    return maps, {"seconds": seconds, "seconds_predict": seconds_predict}


def is_whole_checkpoint(path: Path) -> bool:
    """Return whether a checkpoint of nnU-Net is there and fits its checksums: nnU-Net does not write it atomically."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def _configurations(
    experiment: Experiment, prepared: Prepared, home: Path, stylizers: dict[str, Path]
) -> dict[str, dict[str, Any]]:
    """Return the ``"osasis"`` options of every configuration by its name; the references are written as files."""
    probability = experiment.budget.probability
    configurations: dict[str, dict[str, Any]] = {BASE: {"probability": probability}}
    for target, picture in prepared.references.items():
        write_png(home / f"reference_{target}.png", channels_last(picture))
    for cell in all_cells(experiment):
        if cell.target is None or cell.method.kind == "truth":
            continue
        options: dict[str, Any] = {"probability": probability, "reference": str(home / f"reference_{cell.target}.png")}
        if stylizer := stylizers.get(f"{cell.method.name}@{cell.target}"):
            options["stylizer"] = str(stylizer)
        if "strength" in cell.method.parameters:
            options["strength"] = cell.method.parameters["strength"]
        configurations[configuration_of(cell)] = options
    return configurations


def _add_configurations(
    folder: Path, budget: Budget, configurations: dict[str, dict[str, Any]], folds: list[dict[str, list[str]]]
) -> None:
    """Write the configurations and the folds into a dataset's preprocessed ``folder``."""
    plans = read_json(folder / "nnUNetPlans.json", what="nnU-Net's plans")
    full = plans["configurations"]["2d"]
    # Without features in the budget, nnU-Net's own plan stands.
    small = small_configuration(full, budget.features, budget.patch, budget.batch_size) if budget.features else {}
    for name, options in configurations.items():
        plans["configurations"][name] = {"inherits_from": "2d", **small, "osasis": options}
    atomic_write_json(folder / "nnUNetPlans.json", plans)
    atomic_write_json(folder / "splits_final.json", folds)


def _folds(names: Sequence[str], count: int) -> list[dict[str, list[str]]]:
    """Return ``count`` folds that validate on a few different cases each and train on all others."""
    size = max(1, min(VALIDATION_CASES, len(names) // 5, len(names) // (count + 1)))
    held_out = [list(names[fold * size : (fold + 1) * size]) for fold in range(count)]
    return [{"train": [name for name in names if name not in kept], "val": kept} for kept in held_out]


def _run(command: list[str], home: Path, log: Path, *, device: str, threads: int) -> float:
    """Run one of nnU-Net's console commands, its output going to ``log``, and return its seconds.

    Raises:
        OsasisError: the command failed.
    """
    environment = {
        **os.environ,
        **{name: str(home / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")},
        "nnUNet_n_proc_DA": os.environ.get("nnUNet_n_proc_DA", "1"),
        "nnUNet_def_n_proc": "1",
        "OMP_NUM_THREADS": str(threads),
        "MPLBACKEND": "Agg",
    }
    if device.startswith("cuda:"):
        visible, index = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(","), int(device.split(":")[1])
        environment["CUDA_VISIBLE_DEVICES"] = visible[index] if len(visible) > index and visible[0] else str(index)
    child = child_command(f"@{command[0]}", *command[1:], one_core=device == "cpu" and threads == 1)
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with log.open("wb") as stream:
        stream.write(f"$ {shlex.join(command)}\n".encode())
        stream.flush()
        ended = subprocess.run(child, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    if ended.returncode != 0:
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        end = "\n".join(f"    {line[:300]}" for line in lines)
        raise OsasisError(
            f"{' '.join(command[:4])} must succeed",
            found=f"exit status {ended.returncode}",
            remedy=f"End of {log}:\n{end}",
        )
    return time.perf_counter() - began
