"""The folder of an export: what it was made from, whether it answers as the trained model does, and how to use it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_osasis.networks.portable import FORMS, INPUT, OUTPUT
from nnunet_osasis.nnunet.export.model_folder import ModelFolder
from nnunet_osasis.nnunet.export.networks import input_shape
from nnunet_osasis.runtime.folders import atomic_folder
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.provenance import versions
from nnunet_osasis.runtime.records import write_sealed_json
from nnunet_osasis.runtime.storage import sha256_of_file

RECORD = "osasis_export.json"
"""File that marks a folder as an export; only such a folder is ever replaced."""

PREPROCESSING = "preprocessing.json"
"""File with all that a program without nnU-Net has to know to use an exported network."""

NOTICE = "Research use only; not a medical device. Whoever deploys this model has to validate it where it is used."

PACKAGES = ("nnunet-osasis", "nnunetv2", "torch", "numpy", "dynamic_network_architectures")
"""Packages whose versions every record holds; those of the format are added."""

SEED = 0
"""Seed of the random patches on which two networks are compared."""


@contextmanager
def export_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` when the block ends well. Raises ``OsasisError`` if it may not."""
    with (
        output_lock(target.parent, "osasis-export"),
        atomic_folder(target, overwrite=overwrite, marker=RECORD) as folder,
    ):
        yield folder


def write_record(folder: Path, model: ModelFolder, *, form: str, compared: dict[str, Comparison]) -> None:
    """Write ``osasis_export.json`` over all files that are in ``folder`` by now; no paths and no times in it.

    Args:
        folder: the export.
        model: the model that was exported.
        form: ``nnunet``, ``onnx`` or ``torchscript``.
        compared: the comparison with the trained network, by fold.
    """
    packages = (*PACKAGES, *(FORMS[form].packages if form in FORMS else ()))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    record = {
        "format": 1,
        "notice": NOTICE,
        "form": form,
        "dataset": model.dataset,
        "trainer": model.trainer_name,
        "plans": model.plans_name,
        "configuration": model.configuration,
        "checkpoint": next(iter(model.checkpoints.values())).name,
        "folds": {
            fold: {"checkpoint_sha256": sha256_of_file(model.checkpoints[fold]), "compared": comparison.as_json()}
            for fold, comparison in compared.items()
        },
        "files_sha256": {path.relative_to(folder).as_posix(): sha256_of_file(path) for path in files},
        "versions": {"python": platform.python_version(), **versions(packages)},
    }
    write_sealed_json(folder / RECORD, record)


@dataclass(frozen=True)
class Comparison:
    """The outputs of two networks for the same random patches, compared.

    Attributes:
        inputs: shapes of the batches.
        largest_logit: the largest absolute logit, the scale of the difference.
        max_abs_difference: largest difference between two logits.
        same_labels: share of voxels, in [0, 1], with the same highest channel.
    """

    inputs: list[tuple[int, ...]]
    largest_logit: float
    max_abs_difference: float
    same_labels: float

    @property
    def identical(self) -> bool:
        """Every logit equals its counterpart."""
        return self.max_abs_difference == 0.0

    def within(self, tolerance: float) -> bool:
        """No difference beyond ``tolerance``, as a share of the largest logit where that is above 1."""
        return self.max_abs_difference <= tolerance * max(1.0, self.largest_logit)

    def as_json(self) -> dict[str, Any]:
        """For the record."""
        values = asdict(self) | {"inputs": [list(shape) for shape in self.inputs]}
        return values | {"input_values": f"standard normal, seed {SEED}", "identical": self.identical}


def compare(
    trained: Callable[[torch.Tensor], torch.Tensor],
    exported: Callable[[torch.Tensor], torch.Tensor],
    shape: tuple[int, ...],
    *,
    batches: tuple[int, ...] = (1,),
) -> Comparison:
    """Run both on random patches ``(batch, *shape)``, standard normal as normalized images about are.

    Args:
        trained: the trained network.
        exported: the exported one.
        shape: of a patch with its channels.
        batches: sizes of the batches.

    Returns:
        The comparison; NaN in either output makes the difference infinite.
    """
    generator = torch.Generator().manual_seed(SEED)
    largest, difference, same, voxels = 0.0, 0.0, 0, 0
    for batch in batches:
        patch = torch.randn((batch, *shape), generator=generator)
        with torch.inference_mode():
            ours, theirs = trained(patch), exported(patch)
        apart = (ours - theirs).abs().nan_to_num(nan=float("inf"))
        largest, difference = max(largest, float(ours.abs().max())), max(difference, float(apart.max()))
        same += int((ours.argmax(1) == theirs.argmax(1)).sum())
        voxels += ours[:, 0].numel()
    return Comparison([(batch, *shape) for batch in batches], largest, difference, same / voxels)


def describe_preprocessing(model: ModelFolder) -> dict[str, Any]:
    """Everything that has to be done to an image before the network sees it, and to its output, in this order.

    Axes are counted as nnU-Net reads images: ``(C, Z, Y, X)``, 2D images as one slice.
    """
    plans, dataset_json = model.plans, model.dataset_json
    manager = PlansManager(plans)
    settings = manager.get_configuration(model.configuration)
    labels = manager.get_label_manager(dataset_json)
    shape = input_shape(plans, dataset_json, model.configuration)
    names = dataset_json.get("channel_names", dataset_json.get("modality", {}))
    intensities = plans.get("foreground_intensity_properties_per_channel", {})
    channels = []
    for index, scheme in enumerate(settings.normalization_schemes):
        channel = {
            "name": names[str(index)],
            "normalization": scheme,
            "only_inside_the_mask": bool(settings.use_mask_for_norm[index]),
        }
        if scheme == "CTNormalization":  # the only scheme that takes its numbers from the training set
            known = intensities[str(index)]
            channel |= {key: known[key] for key in ("mean", "std", "percentile_00_5", "percentile_99_5")}
        channels.append(channel)
    return {
        "notice": NOTICE,
        "steps": [
            "transpose the axes by transpose_forward",
            "crop to the smallest box around the mask: voxels that are not zero in some channel, holes filled",
            "normalize every channel",
            "resample to spacing (2d: within slices only)",
            "cut patches of the network's size, overlapping by half, and average their logits with a Gaussian weight",
            "softmax and the highest channel, or sigmoid and a threshold of 0.5 for regions",
            "undo resampling, crop and transposition",
        ],
        "transpose_forward": manager.transpose_forward,
        "channels": channels,
        "spacing": list(settings.spacing),
        "resampling": {
            "function": settings.configuration["resampling_fn_data"],
            "options": settings.configuration["resampling_fn_data_kwargs"],
        },
        "preprocessor": settings.preprocessor_name,
        "image_reader_writer": plans["image_reader_writer"],
        "input": {"name": INPUT, "type": "float32", "shape": ["batch", *shape]},
        "output": {
            "name": OUTPUT,
            "type": "float32",
            "shape": ["batch", labels.num_segmentation_heads, *shape[1:]],
            "then": "sigmoid" if labels.has_regions else "softmax",
        },
        "labels": dataset_json["labels"],
        "regions_class_order": dataset_json.get("regions_class_order"),
        "mirroring_axes": model.mirroring_axes,
    }
