"""A model of any of our trainers as one ONNX or TorchScript file per fold, with what is needed to use it."""

from __future__ import annotations

from pathlib import Path

import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.networks.portable import FORMS
from nnunet_osasis.nnunet.export.model_folder import ModelFolder, read_checkpoint
from nnunet_osasis.nnunet.export.networks import build_network, input_shape, trainer_named
from nnunet_osasis.nnunet.export.plain import plain_plans, require_same_training, write_settings
from nnunet_osasis.nnunet.export.record import (
    PREPROCESSING,
    RECORD,
    Comparison,
    compare,
    describe_preprocessing,
    write_record,
)
from nnunet_osasis.runtime.folders import atomic_folder
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.runtime.storage import sha256_of_file

_BATCHES = (1, 2, 3)


def export_networks(
    model: ModelFolder, output: Path, form: str, *, overwrite: bool = False
) -> tuple[Path, dict[str, Comparison]]:
    """Write ``output/DatasetXXX_Name/<trainer>__<plans>__<configuration>__<form>`` with ``fold_0.onnx`` and so on.

    The network is the one nnU-Net's predictor runs: no deep supervision, patches ``(batch, C, *patch)`` in, logits
    out. Every file is read back, by ONNX Runtime or ``torch.jit.load``, and compared with PyTorch on random patches;
    nothing is left behind when one differs by more than the format's tolerance.

    Args:
        form: a key of :data:`~nnunet_osasis.networks.portable.FORMS`.

    Returns the folder and, by fold, what was compared. Raises ``OsasisError`` as ``export_plain`` does, and when a
    package is missing or the answers differ.
    """
    file = FORMS[form]
    file.require_packages()
    first = read_checkpoint(next(iter(model.checkpoints.values())))
    configuration, trainer = first["init_args"]["configuration"], trainer_named(first["trainer_name"])
    plans, dataset_json = plain_plans(model.plans), model.dataset_json
    shape = input_shape(plans, dataset_json, configuration)
    target = output / model.dataset / f"{trainer.__name__}__{model.plans_name}__{configuration}__{form}"
    compared, sources = {}, {}
    with (
        output_lock(target.parent, "osasis-export"),
        atomic_folder(target, overwrite=overwrite, marker=RECORD) as folder,
    ):
        for fold, path in model.checkpoints.items():
            trained = read_checkpoint(path)
            require_same_training(first, trained, path)
            network = build_network(trainer, model.plans, dataset_json, configuration, trained["network_weights"])
            written = folder / f"fold_{fold}{file.suffix}"
            file.write(network, torch.zeros((2, *shape)), written)
            compared[fold] = compare(network, file.read(written), shape, batches=_BATCHES)
            sources[fold] = sha256_of_file(path)
            if not compared[fold].within(file.tolerance):
                raise OsasisError(
                    f"An exported network must give PyTorch's logits (tolerance {file.tolerance:g} of the largest)",
                    found=f"a difference of {compared[fold].max_abs_difference:g} in fold {fold}",
                    remedy="Nothing was exported; try the other --format, and please report this.",
                )
        write_settings(model, plans, folder)
        axes = first["inference_allowed_mirroring_axes"]
        described = describe_preprocessing(plans, dataset_json, configuration, axes)
        atomic_write_json(folder / PREPROCESSING, described)
        write_record(
            folder,
            model,
            trainer=trainer.__name__,
            configuration=configuration,
            form=form,
            sources=sources,
            compared=compared,
        )
    return target, compared
