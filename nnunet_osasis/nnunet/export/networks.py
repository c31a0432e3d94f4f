"""The network of a trained model with its weights, built as nnU-Net's predictor builds it."""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_osasis.errors import OsasisError


def require_own_trainer(trainer: type[nnUNetTrainer]) -> None:
    """Raise ``OsasisError`` unless ``trainer`` comes with this package."""
    if trainer is nnUNetTrainer:
        raise OsasisError(
            "Only a model of one of our trainers is exported",
            found="nnUNetTrainer",
            remedy="It is a plain nnU-Net model already: use it as it is.",
        )
    if not trainer.__module__.startswith("nnunet_osasis."):
        raise OsasisError(
            "Only a model of one of our trainers is exported",
            found=f"a model of {trainer.__name__}",
            remedy="Its own package has to say how its models are used without it.",
        )


def has_stock_network(trainer: type[nnUNetTrainer]) -> bool:
    """Whether a trainer leaves nnU-Net's own network as it is, so that ``nnUNetTrainer`` can rebuild it."""
    return trainer.build_network_architecture is nnUNetTrainer.build_network_architecture


def build_network(
    trainer: type[nnUNetTrainer],
    plans: dict[str, Any],
    dataset_json: dict[str, Any],
    configuration: str,
    weights: dict[str, torch.Tensor],
) -> torch.nn.Module:
    """Build the network without deep supervision, on the CPU, ready to predict.

    Returns:
        A module from ``(B, C, *patch)`` to logits ``(B, K, *patch)``.

    Raises:
        OsasisError: when the weights belong to another network.
    """
    manager = PlansManager(plans)
    if configuration not in manager.available_configurations:
        raise OsasisError(
            f"The plans must hold the model's configuration, one of {', '.join(manager.available_configurations)}",
            found=configuration,
            remedy="plans.json and the checkpoint come from different trainings.",
        )
    settings = manager.get_configuration(configuration)
    network = trainer.build_network_architecture(
        manager,
        settings,
        determine_num_input_channels(manager, settings, dataset_json),
        manager.get_label_manager(dataset_json).num_segmentation_heads,
        enable_deep_supervision=False,
    )
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise OsasisError(
            "The weights must fit the network the plans describe",
            found=" ".join(str(error).split())[:300],
            remedy="plans.json and the checkpoint come from different trainings.",
        ) from error
    return network.eval()


def input_shape(plans: dict[str, Any], dataset_json: dict[str, Any], configuration: str) -> tuple[int, ...]:
    """Shape of the network's input without the batch axis, ``(C, *patch)``."""
    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    return determine_num_input_channels(manager, settings, dataset_json), *settings.patch_size
