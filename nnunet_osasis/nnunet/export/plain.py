"""A model of our trainers on nnU-Net's own network, as a plain ``nnUNetTrainer`` model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.export.model_folder import ModelFolder, read_checkpoint
from nnunet_osasis.nnunet.export.networks import build_network, has_stock_network, input_shape, trainer_named
from nnunet_osasis.nnunet.export.record import RECORD, Comparison, compare, write_record
from nnunet_osasis.runtime.folders import atomic_folder
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import read_json
from nnunet_osasis.runtime.storage import atomic_write, atomic_write_bytes, sha256_of_file

SECTION = "osasis"
"""Our part of a configuration in the plans; nnU-Net does not know it."""


def export_plain(model: ModelFolder, output: Path, *, overwrite: bool = False) -> tuple[Path, dict[str, Comparison]]:
    """Write ``output/DatasetXXX_Name/nnUNetTrainer__<plans>__<configuration>``: the layout of ``nnUNet_results``.

    Every fold is read back from the new folder, rebuilt as ``nnUNetTrainer`` does, and compared with the trained
    network on a random patch; nothing is left behind unless all logits are equal. What only training needs
    (optimizer, losses) is left out, so training cannot be continued from the result; it can start from it
    (``-pretrained_weights``).

    Returns the folder and, by fold, what was compared. Raises ``OsasisError`` for a checkpoint that cannot be read,
    a trainer with another network, folds that do not belong together, and an output that is there already.
    """
    first = read_checkpoint(next(iter(model.checkpoints.values())))
    configuration, trainer = first["init_args"]["configuration"], trainer_named(first["trainer_name"])
    if not has_stock_network(trainer):
        raise OsasisError(
            "Only a model with nnU-Net's own network becomes a plain nnU-Net model",
            found=f"a model of {trainer.__name__}",
            remedy="Export it with --format onnx or --format torchscript.",
        )
    plans = plain_plans(model.plans)
    name = f"{nnUNetTrainer.__name__}__{model.plans_name}__{configuration}"
    compared, sources = {}, {}
    target = output / model.dataset / name
    with (
        output_lock(target.parent, "osasis-export"),
        atomic_folder(target, overwrite=overwrite, marker=RECORD) as folder,
    ):
        write_settings(model, plans, folder)
        for fold, path in model.checkpoints.items():
            trained = read_checkpoint(path)
            require_same_training(first, trained, path)
            written = folder / f"fold_{fold}" / "checkpoint_final.pth"
            _save(plain_checkpoint(trained, plans, model.dataset_json), written)
            compared[fold], sources[fold] = _compare(model, trained, written), sha256_of_file(path)
        write_record(
            folder,
            model,
            trainer=trainer.__name__,
            configuration=configuration,
            form="nnunet",
            sources=sources,
            compared=compared,
        )
    return output / model.dataset / name, compared


def plain_plans(plans: dict[str, Any]) -> dict[str, Any]:
    """The plans without our section, in every configuration. Raises ``OsasisError`` if they still need our package."""
    plain = copy.deepcopy(plans)
    for configuration in plain["configurations"].values():
        configuration.pop(SECTION, None)
    if "nnunet_osasis" in json.dumps(plain):
        raise OsasisError(
            "The plans of a plain model may not name our package",
            found="nnunet_osasis in plans.json",
            remedy="Use nnU-Net's own planner, preprocessor and network.",
        )
    return plain


def plain_checkpoint(checkpoint: dict[str, Any], plans: dict[str, Any], dataset_json: dict[str, Any]) -> dict[str, Any]:
    """What nnU-Net's predictor needs, under the stock trainer's name: tensors and plain Python values only."""
    axes = checkpoint["inference_allowed_mirroring_axes"]
    return {
        "network_weights": checkpoint["network_weights"],
        "trainer_name": nnUNetTrainer.__name__,
        "init_args": {
            "plans": plans,
            "configuration": checkpoint["init_args"]["configuration"],
            "fold": checkpoint["init_args"].get("fold"),
            "dataset_json": dataset_json,
        },
        "inference_allowed_mirroring_axes": None if axes is None else tuple(int(axis) for axis in axes),
    }


def require_same_training(first: dict[str, Any], other: dict[str, Any], path: Path) -> None:
    """Raise ``OsasisError`` when two folds come from different trainers or configurations."""
    for key, ours, theirs in (
        ("trainer", first["trainer_name"], other["trainer_name"]),
        ("configuration", first["init_args"]["configuration"], other["init_args"]["configuration"]),
    ):
        if ours != theirs:
            raise OsasisError(
                f"The folds of a model must share their {key}",
                found=f"{theirs} in {path}, {ours} before",
                remedy="Export the folds that belong together (-f).",
            )


def write_settings(model: ModelFolder, plans: dict[str, Any], folder: Path) -> None:
    """Write ``plans.json`` and ``dataset.json``, and copy the fingerprint if there is one."""
    for name, content in (("plans.json", plans), ("dataset.json", model.dataset_json)):
        text = json.dumps(content, indent=4)  # nnU-Net's own order of keys, in which it shows them
        atomic_write_bytes(folder / name, text.encode())
    fingerprint = model.path / "dataset_fingerprint.json"
    if fingerprint.is_file():
        atomic_write_bytes(folder / fingerprint.name, fingerprint.read_bytes())


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    def write(temporary: Path) -> None:
        with open(temporary, "wb") as stream:  # given a path, torch would put its random name into the file
            torch.save(checkpoint, stream)

    atomic_write(path, write)


def _compare(model: ModelFolder, trained: dict[str, Any], written: Path) -> Comparison:
    """The trained network against the one that the written files alone describe."""
    configuration = trained["init_args"]["configuration"]
    ours = build_network(
        trainer_named(trained["trainer_name"]),
        model.plans,
        model.dataset_json,
        configuration,
        trained["network_weights"],
    )
    settings = [read_json(written.parent.parent / name, what=name) for name in ("plans.json", "dataset.json")]
    plans, dataset_json = settings
    theirs = build_network(
        nnUNetTrainer, plans, dataset_json, configuration, read_checkpoint(written)["network_weights"]
    )
    compared = compare(ours, theirs, input_shape(plans, dataset_json, configuration))
    if not compared.identical:
        raise OsasisError(
            "An exported model must give the trained model's logits",
            found=f"a difference of {compared.max_abs_difference:g} in {written.parent.name}",
            remedy="Nothing was exported; please report this.",
        )
    return compared
