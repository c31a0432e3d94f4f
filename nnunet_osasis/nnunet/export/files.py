"""A model of any of our trainers as one ONNX or TorchScript file per fold, with what is needed to use it."""

from __future__ import annotations

from pathlib import Path

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.networks.portable import FORMS
from nnunet_osasis.nnunet.export.model_folder import ModelFolder
from nnunet_osasis.nnunet.export.networks import build_network, input_shape, require_own_trainer
from nnunet_osasis.nnunet.export.record import (
    PREPROCESSING,
    Comparison,
    compare,
    describe_preprocessing,
    export_folder,
    write_record,
)
from nnunet_osasis.runtime.records import atomic_write_json

BATCH_SIZES = (1, 2, 3)
"""Sizes of the batches on which an exported network is compared with the trained one."""


def export_networks(
    model: ModelFolder, trainer: type[nnUNetTrainer], output: Path, form: str, *, overwrite: bool = False
) -> tuple[Path, dict[str, Comparison]]:
    """Write ``output/DatasetXXX_Name/<trainer>__<plans>__<configuration>__<form>`` with ``fold_0.onnx`` and so on.

    The network is the one nnU-Net's predictor runs: no deep supervision, patches ``(batch, C, *patch)`` in, logits
    out. Every file is read back, by ONNX Runtime or ``torch.jit.load``, and compared with PyTorch on random patches;
    nothing is left behind when one differs by more than the format's tolerance.

    Args:
        model: the trained model.
        trainer: the class that trained it.
        output: a folder like ``nnUNet_results``.
        form: a key of :data:`~nnunet_osasis.networks.portable.FORMS`.
        overwrite: replace an earlier export.

    Returns:
        The new folder, and the comparison by fold.

    Raises:
        OsasisError: as ``export_plain``, and when a package is missing or the logits differ.
    """
    file = FORMS[form]
    file.require_packages(otherwise=" (or use --format torchscript, which needs nothing)")
    require_own_trainer(trainer)
    model.plain_plans()  # refuses plans that need our package before anything is written
    shape = input_shape(model.plans, model.dataset_json, model.configuration)
    name = f"{trainer.__name__}__{model.plans_name}__{model.configuration}__{form}"
    compared = {}
    with export_folder(output / model.dataset / name, overwrite=overwrite) as folder:
        for fold, trained in model.folds():
            weights = trained["network_weights"]
            network = build_network(trainer, model.plans, model.dataset_json, model.configuration, weights)
            path = folder / f"fold_{fold}{file.suffix}"
            file.write(network, torch.zeros((2, *shape)), path)
            compared[fold] = compare(network, file.read(path), shape, batches=BATCH_SIZES)
            if not compared[fold].within(file.tolerance):
                raise OsasisError(
                    f"An exported network must give PyTorch's logits (tolerance {file.tolerance:g} of the largest)",
                    found=f"a difference of {compared[fold].max_abs_difference:g} in fold {fold}",
                    remedy="Nothing was exported; try the other --format, and please report this.",
                )
        model.write_settings(folder)
        atomic_write_json(folder / PREPROCESSING, describe_preprocessing(model))
        write_record(folder, model, form=form, compared=compared)
    return output / model.dataset / name, compared
