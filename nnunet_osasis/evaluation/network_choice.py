"""Networks of an experiment by name, with the loss and the learning rate that suit them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment import Budget, NetworkSpec

OWN = ("unet", "unetpp", "pranet")
CLASSES = 2  # background and foreground

Loss = Callable[[Any, torch.Tensor], torch.Tensor]


def make_network(spec: NetworkSpec, channels: int, budget: Budget) -> nn.Module:
    """The network, randomly initialised: ``(B, channels, H, W)`` to logits ``(B, 2, H, W)``, or to a list of them.

    Raises ``OsasisError`` for a name that nobody knows and for arguments that the network refuses.
    """
    arguments = dict(spec.arguments)
    try:
        if spec.monai is not None:
            return _monai_network(spec.monai, channels, arguments)
        if spec.name == "unet":
            return _nnunet_network(channels, arguments.pop("features", budget.features), arguments)
        if spec.name == "unetpp":
            from nnunet_osasis.networks import UNetPlusPlus

            width = budget.features[0]
            given = {"features": (*(width * 2**level for level in (0, 1, 2, 3, 3)), width), **arguments}
            return UNetPlusPlus(channels, CLASSES, **given)
        if spec.name == "pranet":
            from nnunet_osasis.networks import PraNet

            return PraNet(channels, CLASSES, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError, NotImplementedError) as error:
        if isinstance(error, OsasisError):
            raise
        raise OsasisError(f"The network {spec.name} must take its arguments", found=error) from error
    raise OsasisError(
        "The network must be known",
        found=spec.name,
        remedy=f'Known: {", ".join(OWN)}; or name one of MONAI\'s: {{"name": "{spec.name}", "monai": "BasicUNet"}}.',
    )


def check_network(spec: NetworkSpec, channels: int, budget: Budget) -> None:
    """Build the network and send one patch through it, so that what cannot work is told before hours of work.

    Raises ``OsasisError`` for unknown networks and arguments, and for patches that the network cannot take.
    """
    network = make_network(spec, channels, budget).eval()
    patch = torch.zeros(1, channels, budget.patch, budget.patch)
    try:
        with torch.inference_mode():
            answer = network(patch)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise OsasisError(
            f"The network {spec.name} must take patches of {budget.patch} px",
            found=str(error).splitlines()[0][:200],
            remedy="Choose a patch that is a multiple of 32, or other arguments.",
        ) from error
    first = answer if isinstance(answer, torch.Tensor) else answer[0]
    if first.shape != (1, CLASSES, budget.patch, budget.patch):
        raise OsasisError(f"The network {spec.name} must answer with two maps of its input's size", found=first.shape)


def make_loss(spec: NetworkSpec) -> Loss:
    """PraNet's structure loss, or nnU-Net's Dice and cross-entropy for all others; mean over several maps.

    The loss takes logits (or a list) and labels ``(B, 1, H, W)``.
    """
    if spec.name == "pranet" and spec.monai is None:
        from nnunet_osasis.networks import StructureLoss

        one: Loss = StructureLoss()
    else:
        from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
        from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

        one = DC_and_CE_loss(
            {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False},
            {},
            dice_class=MemoryEfficientSoftDiceLoss,
        )

    def loss(logits: torch.Tensor | Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        maps = [logits] if isinstance(logits, torch.Tensor) else list(logits)
        return torch.stack([one(each.float(), labels) for each in maps]).mean()

    return loss


def learning_rate(spec: NetworkSpec, budget: Budget) -> float:
    """The network's own learning rate where it names one, else the budget's; PraNet's backbone wants a quarter."""
    return budget.learning_rate / 4 if spec.name == "pranet" and spec.monai is None else budget.learning_rate


def _nnunet_network(channels: int, features: Sequence[int], arguments: dict[str, Any]) -> nn.Module:
    """nnU-Net's plain convolutional U-Net with its defaults for 2D."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    stages = len(features)
    settings: dict[str, Any] = {
        "n_conv_per_stage": 2,
        "n_conv_per_stage_decoder": 2,
        "kernel_sizes": 3,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm2d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": False,
    }
    strides = [1] + [2] * (stages - 1)
    return PlainConvUNet(
        channels, stages, list(features), nn.Conv2d, strides=strides, num_classes=CLASSES, **{**settings, **arguments}
    )


def _monai_network(name: str, channels: int, arguments: dict[str, Any]) -> nn.Module:
    from monai.networks import nets

    found = getattr(nets, name, None)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise OsasisError(
            "The MONAI network must be a class of monai.networks.nets", found=name, remedy="Such as BasicUNet."
        )
    given = {"spatial_dims": 2, "in_channels": channels, "out_channels": CLASSES, **arguments}
    return found(**given)
