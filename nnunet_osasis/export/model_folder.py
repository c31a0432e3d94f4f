"""A folder nnU-Net trained a model into: its plans, its dataset and its folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_results

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.configuration import dataset_name
from nnunet_osasis.runtime.records import read_json


@dataclass(frozen=True)
class ModelFolder:
    """``nnUNet_results/DatasetXXX_Name/<trainer>__<plans>__<configuration>``, as :func:`open_model_folder` reads it.

    Attributes:
        checkpoints: one file per fold, by the fold's name: ``"0"``, ``"1"``, ... or ``"all"``.
    """

    path: Path
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    checkpoints: dict[str, Path]

    @property
    def dataset(self) -> str:
        """The dataset's full name, such as ``Dataset501_Polyps``."""
        return str(self.plans["dataset_name"])

    @property
    def plans_name(self) -> str:
        """The plans' name, such as ``nnUNetPlans``."""
        return str(self.plans["plans_name"])


def find_model_folder(dataset: int | str, configuration: str, plans: str, trainer: str) -> Path:
    """Where nnU-Net put a model. Raises ``OsasisError`` when ``nnUNet_results`` is not set or the dataset unknown."""
    if not nnUNet_results.is_set():
        raise OsasisError(
            "nnU-Net must know where results are",
            found="no environment variable nnUNet_results",
            remedy="Set it as for nnUNetv2_train, or name the model folder itself (-i).",
        )
    return Path(nnUNet_results) / dataset_name(dataset) / f"{trainer}__{plans}__{configuration}"


def open_model_folder(
    path: str | Path, folds: Sequence[str] | None = None, checkpoint: str = "checkpoint_final.pth"
) -> ModelFolder:
    """Read a model folder; checkpoints are only located.

    Args:
        folds: names of the folds, ``"0"`` or ``"all"``; None takes every numbered fold that has the checkpoint, or
            else ``fold_all``.
        checkpoint: the name of the file in each fold.

    Raises ``OsasisError`` when the folder, its plans, a fold or a checkpoint is not there.
    """
    path = Path(path)
    if not path.is_dir():
        others = sorted(p.name for p in path.parent.glob("*__*__*") if p.is_dir()) if path.parent.is_dir() else []
        there = f"There are: {', '.join(others)}." if others else "Train the model first, or check -d, -c, -p and -tr."
        raise OsasisError("The model folder must exist", found=f"no folder {path}", remedy=there)
    plans = read_json(path / "plans.json", what="The model's plans.json")
    for key in ("dataset_name", "plans_name", "configurations"):
        if key not in plans:
            raise OsasisError(
                "The model's plans.json must be nnU-Net's",
                found=f"no {key!r} in {path}/plans.json",
                remedy="Copy the model folder again.",
            )
    dataset_json = read_json(path / "dataset.json", what="The model's dataset.json")
    if Path(checkpoint).name != checkpoint:
        raise OsasisError(
            "The checkpoint (-chk) is a file's name within the folds",
            found=checkpoint,
            remedy="Such as checkpoint_best.pth.",
        )
    return ModelFolder(path, plans, dataset_json, _locate(path, folds, checkpoint))


def _locate(path: Path, folds: Sequence[str] | None, checkpoint: str) -> dict[str, Path]:
    found = {p.name.removeprefix("fold_"): p / checkpoint for p in path.glob("fold_*") if (p / checkpoint).is_file()}
    numbered = sorted((name for name in found if name.isdecimal()), key=int)
    if folds is None:
        folds = numbered or [name for name in ("all",) if name in found]
    missing = [fold for fold in folds if fold not in found]
    if missing or not folds:
        raise OsasisError(
            "Every fold must be trained",
            found=f"no {checkpoint} of fold {', '.join(missing) or 'any number'} in {path}",
            remedy=f"Folds with that file: {', '.join(sorted(found)) or 'none'}.",
        )
    return {fold: found[fold] for fold in dict.fromkeys(folds)}
