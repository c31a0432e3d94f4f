"""A model folder of nnU-Net: its plans, its dataset and its folds, whose checkpoints are read without running code."""

from __future__ import annotations

import copy
import json
import pickle
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.paths import nnUNet_results

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.configuration import dataset_name
from nnunet_osasis.runtime.records import read_json
from nnunet_osasis.runtime.storage import atomic_write_bytes

SECTION = "osasis"
"""Key of our options in a configuration of the plans; nnU-Net does not know it."""

REQUIRED_KEYS = ("network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes")
"""Keys of nnU-Net's checkpoints that predictions need."""


@dataclass(frozen=True)
class ModelFolder:
    """``nnUNet_results/DatasetXXX_Name/<trainer>__<plans>__<configuration>``, as :func:`open_model_folder` reads it.

    Attributes:
        path: the folder.
        plans: content of ``plans.json``.
        dataset_json: content of ``dataset.json``.
        checkpoints: one file per fold, by the fold's name: ``"0"``, ``"1"``, ... or ``"all"``.
        trainer_name: class name of the trainer.
        configuration: name of the configuration, such as ``2d``.
        mirroring_axes: axes along which nnU-Net's predictor may mirror.
    """

    path: Path
    plans: dict[str, Any]
    dataset_json: dict[str, Any]
    checkpoints: dict[str, Path]
    trainer_name: str
    configuration: str
    mirroring_axes: list[int] | None

    @property
    def dataset(self) -> str:
        """The dataset's full name, such as ``Dataset501_Polyps``."""
        return str(self.plans["dataset_name"])

    @property
    def plans_name(self) -> str:
        """The plans' name, such as ``nnUNetPlans``."""
        return str(self.plans["plans_name"])

    def folds(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Read one fold after another: ``(name, checkpoint)``.

        Raises:
            OsasisError: as :func:`read_checkpoint`, and when two folds differ in trainer or configuration.
        """
        for fold, path in self.checkpoints.items():
            checkpoint = read_checkpoint(path)
            for kind, expected, actual in (
                ("trainer", self.trainer_name, checkpoint["trainer_name"]),
                ("configuration", self.configuration, checkpoint["init_args"]["configuration"]),
            ):
                if actual != expected:
                    raise OsasisError(
                        f"The folds of a model must share their {kind}",
                        found=f"{actual} in {path}, {expected} before",
                        remedy="Export the folds that belong together (-f).",
                    )
            yield fold, checkpoint

    def plain_plans(self) -> dict[str, Any]:
        """The plans without our options. Raises ``OsasisError`` if they still need our package."""
        plans = copy.deepcopy(self.plans)
        for configuration in plans["configurations"].values():
            configuration.pop(SECTION, None)
        if "nnunet_osasis" in json.dumps(plans):
            raise OsasisError(
                "The plans of an exported model may not name our package",
                found="nnunet_osasis in plans.json",
                remedy="Use nnU-Net's own planner, preprocessor and network.",
            )
        return plans

    def write_settings(self, folder: Path) -> None:
        """Write plain plans and ``dataset.json`` into ``folder``, and the dataset's fingerprint if there is one."""
        for name, content in (("plans.json", self.plain_plans()), ("dataset.json", self.dataset_json)):
            atomic_write_bytes(folder / name, json.dumps(content, indent=4).encode())  # keys in nnU-Net's own order
        fingerprint = self.path / "dataset_fingerprint.json"
        if fingerprint.is_file():
            atomic_write_bytes(folder / fingerprint.name, fingerprint.read_bytes())


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
    """Read a model folder; of the checkpoints, the first one.

    Args:
        path: the folder.
        folds: names of the folds, ``"0"`` or ``"all"``; None takes every numbered fold that has the checkpoint, or
            else ``fold_all``.
        checkpoint: name of the file in each fold.

    Raises:
        OsasisError: when the folder, its plans, a fold or a checkpoint is missing, and as :func:`read_checkpoint`.
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
    checkpoints = _locate(path, folds, checkpoint)
    first = read_checkpoint(next(iter(checkpoints.values())))
    axes = first["inference_allowed_mirroring_axes"]
    return ModelFolder(
        path,
        plans,
        dataset_json,
        checkpoints,
        trainer_name=str(first["trainer_name"]),
        configuration=str(first["init_args"]["configuration"]),
        mirroring_axes=None if axes is None else [int(axis) for axis in axes],
    )


def _locate(path: Path, folds: Sequence[str] | None, checkpoint: str) -> dict[str, Path]:
    files = {p.name.removeprefix("fold_"): p / checkpoint for p in path.glob("fold_*") if (p / checkpoint).is_file()}
    if folds is None:
        folds = sorted((name for name in files if name.isdecimal()), key=int) or (["all"] if "all" in files else [])
    missing = [fold for fold in folds if fold not in files]
    if missing or not folds:
        raise OsasisError(
            "Every fold must be trained",
            found=f"no {checkpoint} of fold {', '.join(missing) or 'any number'} in {path}",
            remedy=f"Folds with that file: {', '.join(sorted(files)) or 'none'}.",
        )
    return {fold: files[fold] for fold in dict.fromkeys(folds)}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What nnU-Net saved, on the CPU: tensors, numbers, text and containers of them.

    The archive's own checksums are compared first, because torch does not: a flipped bit in a weight loads silently.

    Raises:
        OsasisError: when the file is missing or damaged, would run code, is no checkpoint of nnU-Net, or has weights
            that are not finite.
    """
    path = Path(path)
    _require_whole(path)
    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise OsasisError(
            "A checkpoint may hold tensors, numbers and text only, anything else could run a program when it is read",
            found=f"{_first_line(error)} in {path}",
            remedy="Take the file nnU-Net wrote itself.",
        ) from error
    except (RuntimeError, ValueError, TypeError, KeyError, EOFError, OSError) as error:
        raise _damaged(path, _first_line(error)) from error
    _require_nnunet(path, checkpoint)
    return checkpoint


def _numpy_numbers() -> list[Any]:
    """Classes that nnU-Net's losses and scores are read with, under the names of numpy 1 and numpy 2."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    kinds = [type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "bool")]
    return [np.dtype, scalar, (scalar, "numpy.core.multiarray.scalar"), *kinds]


def _require_whole(path: Path) -> None:
    if not path.is_file():
        raise OsasisError(
            "The checkpoint must exist", found=f"no file {path}", remedy="Finish the training, or name another (-chk)."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        raise _damaged(path, str(error)) from error
    if broken is not None:
        raise _damaged(path, f"a wrong checksum of {broken}")


def _require_nnunet(path: Path, checkpoint: Any) -> None:
    missing = [key for key in REQUIRED_KEYS if not isinstance(checkpoint, dict) or key not in checkpoint]
    if not missing:
        if not isinstance(checkpoint["init_args"], dict) or "configuration" not in checkpoint["init_args"]:
            missing.append("configuration")
        if not _are_weights(checkpoint["network_weights"]):
            missing.append("tensors in network_weights")
    if missing:
        raise OsasisError(
            "The file must be a checkpoint of nnU-Net",
            found=f"no {', '.join(missing)} in {path}",
            remedy="Take fold_x/checkpoint_final.pth of a model folder.",
        )
    for name, tensor in checkpoint["network_weights"].items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise OsasisError(
                "A model's weights must be finite",
                found=f"NaN or infinity in {name} of {path}",
                remedy="That training failed: repeat it, or take an earlier checkpoint (-chk checkpoint_best.pth).",
            )


def _are_weights(value: Any) -> bool:
    pairs = value.items() if isinstance(value, dict) else ()
    return bool(pairs) and all(isinstance(name, str) and isinstance(part, torch.Tensor) for name, part in pairs)


def _damaged(path: Path, why: str) -> OsasisError:
    return OsasisError("The checkpoint must be whole", found=f"{why} in {path}", remedy="Copy the file again.")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
