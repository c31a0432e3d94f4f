"""The nnU-Net engine: every cell is ``nnUNetv2_train`` and ``nnUNetv2_predict``; trainings are folds, not seeds."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import time
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
from nnunet_osasis.evaluation.experiment.tasks import is_whole_checkpoint
from nnunet_osasis.nnunet.raw_dataset import small_configuration, write_images, write_png, write_raw_dataset
from nnunet_osasis.runtime.children import child_command
from nnunet_osasis.runtime.records import atomic_write_json, finished, read_json, write_sealed_json
from nnunet_osasis.runtime.storage import sha256_of_json

BASE = "report"
"""Configuration of every training that stylizes nothing."""

SOURCE_ID = 501

VALIDATION_CASES = 4

LAST_LINES = 25

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
    """Name of the cell's trainer. Raises ``OsasisError`` where nnU-Net would find none, or one without the options."""
    found = TRAINERS.get((cell.network.name, cell.method.kind))
    if found is None or cell.network.monai is not None:
        known = sorted({kind for network, kind in TRAINERS if network == cell.network.name})
        raise OsasisError(
            f"The nnU-Net engine needs a trainer for {cell.method.name} with {cell.network.name}",
            found="none",
            remedy=f"It has {', '.join(known) or 'no such network'}; the light engine has all of them.",
        )
    if cell.method.parameters.keys() - {"strength", "losses", "readout"} or cell.network.arguments:
        raise OsasisError(
            "The nnU-Net engine takes methods and networks as its trainers make them",
            found=f"parameters {dict(cell.method.parameters)}, arguments {dict(cell.network.arguments)}",
            remedy="Leave them out, or use the light engine.",
        )
    name = f"{found}_{budget.trainer_length}" if budget.trainer_length else found
    _require_trainer(name)
    return name


@cache
def _require_trainer(name: str) -> None:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        with redirect_stdout(io.StringIO()):  # it tells where it looks
            recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise OsasisError(
            "Every trainer must exist in the length asked for",
            found=f"no {name}",
            remedy='The trainer_length "10epochs" and "" (the full length) are there for all of the U-Net\'s.',
        ) from error


def check(experiment: Experiment) -> None:
    """Refuse, before anything is trained, what the engine has no trainer for."""
    for cell in all_cells(experiment):
        trainer_of(cell, experiment.budget)


def dataset_of(cell: Cell, experiment: Experiment) -> tuple[int, str]:
    """Number and folder name of the dataset a cell trains on: the source's, or a camera's true rendering of it."""
    if cell.method.kind != "truth":
        return SOURCE_ID, f"Dataset{SOURCE_ID}_Source"
    number = SOURCE_ID + 1 + [target.name for target in experiment.targets].index(cell.target or "")
    return number, f"Dataset{number}_Truth"


def configuration_of(cell: Cell) -> str:
    """Name of the cell's configuration in the plans."""
    return BASE if cell.target is None or cell.method.kind == "truth" else f"{BASE}_{cell.method.name}_{cell.target}"


def plan(experiment: Experiment, prepared: Prepared, root: Path, stylizers: dict[str, Path]) -> None:
    """Write the raw datasets, let nnU-Net plan and preprocess them, add the configurations; done once.

    Args:
        root: holds nnU-Net's three folders. stylizers: folder by ``method@target``, with the read-out it is used with.
    """
    cells = all_cells(experiment)
    sets = {SOURCE_ID: (f"Dataset{SOURCE_ID}_Source", prepared.train, prepared.train_masks)}
    for cell in cells:
        if cell.method.kind == "truth":
            number, name = dataset_of(cell, experiment)
            truth = prepared.truths[cell.target or ""]
            sets[number] = name, truth.pictures, truth.masks
    cameras = [[target.name, target.camera.to_json()] for target in experiment.targets if target.camera]
    for number, (name, images, masks) in sets.items():
        key = sha256_of_json([prepared.sha256(), number, cameras])
        record = root / f"{name}.json"
        if finished(record, key) is None:
            shutil.rmtree(root / "nnUNet_raw" / name, ignore_errors=True)
            shutil.rmtree(root / "nnUNet_preprocessed" / name, ignore_errors=True)
            named = [f"train_{i:04d}" for i in range(len(images))]
            pictures = {n: _channels_last(image) for n, image in zip(named, images, strict=True)}
            folder = root / "nnUNet_raw" / name
            write_raw_dataset(folder, pictures, dict(zip(named, masks, strict=True)), foreground="foreground")
            command = ["nnUNetv2_plan_and_preprocess", "-d", str(number), "-c", "2d", "-np", "2", "-npfp", "2"]
            _run(command, root, root / f"plan_{number}.log", device="cpu", threads=2)
            write_sealed_json(record, {"key": key})
        _add_configurations(root / "nnUNet_preprocessed" / name, experiment, prepared, cells, stylizers, root)


def train_and_predict(
    cell: Cell, experiment: Experiment, prepared: Prepared, root: Path, *, key: str, device: str, threads: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Run both commands; returns foreground probabilities uint8 by ``test/case``, and the seconds of each.

    An interrupted training continues, one of another ``key`` is done anew. Raises ``OsasisError`` with the end of the
    log when a command fails.
    """
    trainer, (number, dataset) = trainer_of(cell, experiment.budget), dataset_of(cell, experiment)
    configuration, fold = configuration_of(cell), experiment.seeds.index(cell.seed)
    model = root / "nnUNet_results" / dataset / f"{trainer}__nnUNetPlans__{configuration}" / f"fold_{fold}"
    images, output = root / "tests" / cell.name, root / "predictions" / cell.name
    place = ["-tr", trainer, "-device", device.split(":")[0]]
    log = root / "logs" / f"{cell.name}.log"
    spent, marker = {"seconds": 0.0}, model / "osasis_cell.json"
    if finished(marker, key) is None:
        shutil.rmtree(model, ignore_errors=True)
        write_sealed_json(marker, {"key": key})
    if not is_whole_checkpoint(model / "checkpoint_final.pth"):
        (model / "checkpoint_final.pth").unlink(missing_ok=True)
        proceed = ["--c"] if is_whole_checkpoint(model / "checkpoint_latest.pth") else []
        train = ["nnUNetv2_train", str(number), configuration, str(fold), *place, *proceed]
        spent["seconds"] = _run(train, root, log, device=device, threads=threads)
    for folder in (images, output):
        shutil.rmtree(folder, ignore_errors=True)
    names = {f"test_{i:04d}": (t, c) for i, (t, c) in enumerate((t, c) for t in cell.tests for c in prepared.tests[t])}
    write_images(images, {n: _channels_last(prepared.tests[test][case]) for n, (test, case) in names.items()})
    predict = ["nnUNetv2_predict", "-i", str(images), "-o", str(output), "-d", str(number), "-c", configuration]
    predict += ["-f", str(fold), *place, "--save_probabilities", "-npp", "1", "-nps", "1"]
    spent["seconds_predict"] = _run(predict, root, log.with_suffix(".predict.log"), device=device, threads=threads)
    maps = {}
    for name, (test, case) in names.items():
        with np.load(output / f"{name}.npz", allow_pickle=False) as stored:
            probability = stored["probabilities"][1]
        maps[f"{test}/{case}"] = np.rint(probability.reshape(probability.shape[-2:]) * 255).astype(np.uint8)
    for folder in (images, output):
        shutil.rmtree(folder)
    return maps, spent


def _add_configurations(
    folder: Path,
    experiment: Experiment,
    prepared: Prepared,
    cells: Sequence[Cell],
    stylizers: dict[str, Path],
    root: Path,
) -> None:
    plans = read_json(folder / "nnUNetPlans.json", what="nnU-Net's plans")
    budget, full = experiment.budget, plans["configurations"]["2d"]
    # Without features in the budget nnU-Net's own plan stands.
    small = small_configuration(full, budget.features, budget.patch, budget.batch_size) if budget.features else {}
    base = {"inherits_from": "2d", **small}
    plans["configurations"][BASE] = {**base, "osasis": {"probability": budget.probability}}
    for cell in cells:
        if cell.target is not None and cell.method.kind != "truth":
            reference = write_png(
                root / f"reference_{cell.target}.png", _channels_last(prepared.references[cell.target])
            )
            options: dict[str, Any] = {"probability": budget.probability, "reference": str(reference)}
            if stylizer := stylizers.get(f"{cell.method.name}@{cell.target}"):
                options["stylizer"] = str(stylizer)
            if "strength" in cell.method.parameters:
                options["strength"] = cell.method.parameters["strength"]
            plans["configurations"][configuration_of(cell)] = {**base, "osasis": options}
    atomic_write_json(folder / "nnUNetPlans.json", plans)
    names = [f"train_{i:04d}" for i in range(len(prepared.train))]
    atomic_write_json(folder / "splits_final.json", _folds(names, len(experiment.seeds)))


def _folds(names: Sequence[str], count: int) -> list[dict[str, list[str]]]:
    held = max(1, min(VALIDATION_CASES, len(names) // (count + 1)))
    out = [list(names[fold * held : (fold + 1) * held]) for fold in range(count)]
    return [{"train": [name for name in names if name not in kept], "val": kept} for kept in out]


def _run(command: list[str], root: Path, log: Path, *, device: str, threads: int) -> float:
    """Run a console command of nnU-Net's; returns its seconds."""
    environment = {
        **os.environ,
        **{name: str(root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")},
        "nnUNet_n_proc_DA": os.environ.get("nnUNet_n_proc_DA", "1"),
        "nnUNet_def_n_proc": "1",
        "OMP_NUM_THREADS": str(threads),
        "MPLBACKEND": "Agg",
    }
    if device.startswith("cuda:"):
        inherited = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        index = int(device.split(":")[1])
        environment["CUDA_VISIBLE_DEVICES"] = (
            inherited[index] if len(inherited) > index and inherited[0] else str(index)
        )
    child = child_command(f"@{command[0]}", *command[1:], one_core=device == "cpu" and threads == 1)
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with log.open("wb") as stream:
        ended = subprocess.run(child, env=environment, stdout=stream, stderr=subprocess.STDOUT)
    if ended.returncode != 0:
        end = "\n".join(f"    {line[:300]}" for line in log.read_text(errors="replace").splitlines()[-LAST_LINES:])
        raise OsasisError(
            f"{' '.join(command[:4])} must succeed",
            found=f"exit status {ended.returncode}",
            remedy=f"End of {log}:\n{end}",
        )
    return time.perf_counter() - began


def _channels_last(image: np.ndarray) -> np.ndarray:
    return image[0] if image.shape[0] == 1 else np.ascontiguousarray(np.moveaxis(image, 0, -1))
