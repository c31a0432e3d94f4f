"""A model of our trainers on nnU-Net's own network, as a plain ``nnUNetTrainer`` model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.export.model_folder import ModelFolder, read_checkpoint
from nnunet_osasis.nnunet.export.networks import build_network, has_stock_network, input_shape, require_own_trainer
from nnunet_osasis.nnunet.export.record import Comparison, compare, export_folder, write_record
from nnunet_osasis.runtime.records import read_json
from nnunet_osasis.runtime.storage import atomic_write


def export_plain(
    model: ModelFolder, trainer: type[nnUNetTrainer], output: Path, *, overwrite: bool = False
) -> tuple[Path, dict[str, Comparison]]:
    """Write ``output/DatasetXXX_Name/nnUNetTrainer__<plans>__<configuration>``: the layout of ``nnUNet_results``.

    Every fold is read back from the new folder, rebuilt as ``nnUNetTrainer`` does, and compared with the trained
    network on a random patch; nothing is left behind unless all logits are equal. Optimizer and losses are left out:
    training cannot be continued from the result, but it can start from it (``-pretrained_weights``).

    Args:
        model: the trained model.
        trainer: the class that trained it.
        output: a folder like ``nnUNet_results``.
        overwrite: replace an earlier export.

    Returns:
        The new folder, and the comparison by fold.

    Raises:
        OsasisError: for a checkpoint that cannot be read, a trainer with another network, folds that do not belong
            together, and an output that exists.
    """
    require_own_trainer(trainer)
    if not has_stock_network(trainer):
        raise OsasisError(
            "Only a model with nnU-Net's own network becomes a plain nnU-Net model",
            found=f"a model of {trainer.__name__}",
            remedy="Export it with --format onnx or --format torchscript.",
        )
    plans = model.plain_plans()
    target = output / model.dataset / f"{nnUNetTrainer.__name__}__{model.plans_name}__{model.configuration}"
    compared = {}
    with export_folder(target, overwrite=overwrite) as folder:
        model.write_settings(folder)
        for fold, trained in model.folds():
            path = folder / f"fold_{fold}" / "checkpoint_final.pth"
            _save(plain_checkpoint(trained, plans, model.dataset_json), path)
            compared[fold] = _compare(model, trainer, trained, path)
        write_record(folder, model, form="nnunet", compared=compared)
    return target, compared


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


def _save(checkpoint: dict[str, Any], path: Path) -> None:
    def write(temporary: Path) -> None:
        with open(temporary, "wb") as stream:  # given a path, torch would put its random name into the file
            torch.save(checkpoint, stream)

    atomic_write(path, write)


def _compare(model: ModelFolder, trainer: type[nnUNetTrainer], trained: dict[str, Any], written: Path) -> Comparison:
    """The trained network against the one that the written files alone describe."""
    ours = build_network(trainer, model.plans, model.dataset_json, model.configuration, trained["network_weights"])
    plans = read_json(written.parent.parent / "plans.json", what="plans.json")
    dataset_json = read_json(written.parent.parent / "dataset.json", what="dataset.json")
    weights = read_checkpoint(written)["network_weights"]
    theirs = build_network(nnUNetTrainer, plans, dataset_json, model.configuration, weights)
    compared = compare(ours, theirs, input_shape(plans, dataset_json, model.configuration))
    if not compared.identical:
        raise OsasisError(
            "An exported model must give the trained model's logits",
            found=f"a difference of {compared.max_abs_difference:g} in {written.parent.name}",
            remedy="Nothing was exported; please report this.",
        )
    return compared
