"""What has to be done to an image before an exported network sees it, and to its answer afterwards."""

from __future__ import annotations

from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_osasis.export.networks import input_shape
from nnunet_osasis.export.record import NOTICE
from nnunet_osasis.networks.portable import INPUT, OUTPUT

PREPROCESSING = "preprocessing.json"


def describe_preprocessing(
    plans: dict[str, Any], dataset_json: dict[str, Any], configuration: str, mirroring_axes: Any
) -> dict[str, Any]:
    """Everything a program without nnU-Net has to know, in the order in which it is done.

    Axes are counted as nnU-Net reads images: ``(C, Z, Y, X)``, 2D images as one slice.
    """
    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    labels = manager.get_label_manager(dataset_json)
    shape = list(input_shape(plans, dataset_json, configuration))
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
        "mirroring_axes": None if mirroring_axes is None else [int(axis) for axis in mirroring_axes],
    }
