"""What our trainers do differently from nnU-Net's, as mixins that go before it in the order of inheritance.

``StylizedTraining`` trains on stylized cases, ``ReferenceTraining`` on those of a control with one reference image,
``GINTraining`` on patches that a random network changed, and ``NetworkTraining`` trains PraNet or UNet++.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_osasis.controls.gin import GINParameters, draw_gin, gin
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import StructureGate
from nnunet_osasis.gate.audit import in_words, read_audit
from nnunet_osasis.gate.calibration import chosen_indices
from nnunet_osasis.images.slices import best_slice
from nnunet_osasis.nnunet.cache import StylizedCache
from nnunet_osasis.nnunet.cases import open_cases, read_like_dataset
from nnunet_osasis.nnunet.configuration import NnunetConfiguration, find_stylizer, find_stylizers
from nnunet_osasis.nnunet.dataset import StylizedDataset
from nnunet_osasis.nnunet.on_the_fly.batches import BatchStyle
from nnunet_osasis.nnunet.on_the_fly.measurements import Measurements
from nnunet_osasis.nnunet.on_the_fly.renormalize import ChannelRules
from nnunet_osasis.nnunet.on_the_fly.transfer import OnePassTransfer
from nnunet_osasis.nnunet.options import OsasisOptions
from nnunet_osasis.nnunet.segmenter import NnunetSegmenter
from nnunet_osasis.stylizer.gating import stored_gate
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.transfer import StyleTransfer

MAX_SOURCES = 64
"""Number of training cases that a control is fitted to at most: enough for pooled statistics, few enough for memory."""

OUTPUT_MAPS = 4
"""Number of output maps of PraNet and of UNet++."""


class PlansOptions:
    """The options in the plans of a trainer; a mixin, like all classes here."""

    # Set by nnU-Net's trainer.
    plans_manager: Any
    configuration_manager: Any
    configuration_name: str
    preprocessed_dataset_folder_base: str | None
    dataset_json: dict
    device: Any
    local_rank: int
    current_epoch: int
    print_to_log_file: Any

    @property
    def options(self) -> OsasisOptions:
        """The section ``"osasis"`` of the configuration. Raises ``OsasisError`` for a wrong one."""
        folder = Path(self.preprocessed_dataset_folder_base or ".")
        return OsasisOptions.from_configuration(self.configuration_manager.configuration, relative_to=folder)


class StylizedTraining(PlansOptions):
    """Draw training cases stylized with probability p, validation cases never.

    Stylized copies are made in :meth:`get_tr_and_val_datasets`, before augmentation workers start and before training;
    with ``on_the_fly`` cases are measured there, and :meth:`train_step` restyles batches. A trainer
    with another style transfer overrides :meth:`style_transfer` and nothing else.
    """

    _batch_style: BatchStyle | None = None  # with on_the_fly
    _step: tuple[int, int] = (-1, -1)  # epoch and step of the last batch, which seed the draws

    def style_transfer(self, training_keys: list[str]) -> StyleTransfer:
        """The transfer to train with: the OSASIS stylizer that the plans name, or the dataset's own."""
        return OSASISStylizer.from_pretrained(find_stylizer(self.setup, self.options), device=str(self.device))

    def structure_gate(self, transfer: StyleTransfer) -> StructureGate | None:
        """The gate that compares stylized cases with their originals; None for other transfers, or by the options.

        Its thresholds are calibrated on cases of the whole dataset, not of the fold: folds share them and the cache.
        """
        setup, options = self.setup, self.options
        if not options.gate or not isinstance(transfer, OSASISStylizer):
            return None
        segmenter = None
        if options.segmenter is not None:
            segmenter = NnunetSegmenter(options.segmenter, device=str(self.device))

        def images() -> list[np.ndarray]:
            cases = open_cases(setup)
            keys = [cases.keys[i] for i in chosen_indices(len(cases.keys))]
            return [best_slice(cases.seen(key)).copy() for key in keys]

        folder = setup.preprocessed_folder / f"{setup.manager.data_identifier}_osasis_gate"
        return stored_gate(folder / f"{transfer.fingerprint[:12]}.json", transfer, images, segmenter=segmenter)

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """Make nnU-Net's datasets (its hook) and, without ``on_the_fly``, wrap the one for training."""
        training, validation = super().get_tr_and_val_datasets()  # type: ignore[misc]
        options, keys = self.options, list(training.identifiers)
        if options.on_the_fly:
            self._batch_style = self._prepare_on_the_fly(keys)
            return training, validation
        transfer = self.style_transfer(keys)
        gate = self.structure_gate(transfer)
        cache = StylizedCache(
            self.setup, transfer, options.strength, gate, device=str(self.device), processes=options.processes
        )
        made = cache.build(keys)
        self.print_to_log_file(
            f"Stylized {len(made)} training cases, reused {len(keys) - len(made)}, in {cache.folder}; "
            f"each training case is drawn stylized with probability {options.probability}."
        )
        if gate is not None:
            self._log_decisions(cache.audit, keys)
        stylized = StylizedDataset(
            training,
            cache.image_path,
            probability=options.probability,
            seed=options.seed,
            stream=(self.local_rank, self.current_epoch),  # a resumed run goes on with other draws
        )
        return stylized, validation

    def train_step(self, batch: dict) -> dict:
        """Train on a batch (nnU-Net's hook), with ``on_the_fly`` on a restyled one, in fp32 and without gradients.

        Style comes after the loader's augmentations. ``validation_step`` is nnU-Net's own.
        """
        if self._batch_style is not None:
            epoch, (last_epoch, last_step) = self.current_epoch, self._step
            step = last_step + 1 if last_epoch == epoch else 0
            self._step = epoch, step
            batch = batch | {"data": self._batch_style(batch["data"], batch["keys"], epoch=epoch, step=step)}
        return super().train_step(batch)  # type: ignore[misc]

    def _prepare_on_the_fly(self, keys: list[str]) -> BatchStyle:
        """Load the stylizers that the plans name, and measure every case with each of them.

        Raises:
            OsasisError: for a trainer with another transfer, and where a stylizer or a case does not allow it.
        """
        if type(self).style_transfer is not StylizedTraining.style_transfer:
            raise OsasisError(
                '"on_the_fly" needs a stylizer',
                found=f"{type(self).__name__}, which takes another transfer",
                remedy='Leave "on_the_fly" out for this trainer.',
            )
        options, setup = self.options, self.setup
        transfers, measured = [], []
        folders, device = find_stylizers(setup, options), str(self.device)
        for stylizer in [OSASISStylizer.from_pretrained(folder, device=device) for folder in folders]:
            transfer = OnePassTransfer(stylizer)
            gate = self.structure_gate(stylizer)
            strength = stylizer.config.strength if options.strength is None else options.strength
            measurements = Measurements(setup, transfer, strength, gate, device=device, processes=options.processes)
            cases, made = measurements.build(keys)
            stylizer.to("cpu")  # its networks have no part in the steps, and the device's memory is for training
            transfers.append(transfer)
            measured.append(cases)
            self.print_to_log_file(
                f"On the fly: {len(made)} training cases measured, {len(keys) - len(made)} known, in "
                f"{measurements.folder}; a sample is restyled with probability {options.probability} by a strength "
                f"drawn from [0, {strength:g}]."
            )
            if gate is not None:
                self._log_decisions(measurements.audit, keys)
        return BatchStyle(
            transfers, measured, ChannelRules.of(setup),
            probability=options.probability, seed=(options.seed, self.local_rank), device=self.device,
        )  # fmt: skip

    def _log_decisions(self, audit: Path, keys: list[str]) -> None:
        rows = [row for row in read_audit(audit) if row["case"] in keys]
        self.print_to_log_file(f"{in_words(rows).capitalize()}; audit trail: {audit}")

    @property
    def setup(self) -> NnunetConfiguration:
        """The configuration this trainer runs."""
        return NnunetConfiguration(self.configuration_name, self.plans_manager, self.dataset_json)


class ReferenceTraining(StylizedTraining):
    """Train on cases of a control, which knows one reference image and perhaps some source images."""

    def reference(self) -> np.ndarray:
        """The target-style image in native units: the one that the plans name, else the one stored in the stylizer.

        The first is read as the dataset is, ``(C, Z, Y, X)``; the second is ``(C, H, W)``.
        """
        setup, options = self.setup, self.options
        if options.reference is not None:
            return read_like_dataset(options.reference, setup)
        return OSASISStylizer.from_pretrained(find_stylizer(setup, options), device="cpu").reference

    def sources(self, training_keys: list[str]) -> list[np.ndarray]:
        """Up to ``MAX_SOURCES`` training cases, evenly spaced, ``(C, Z, Y, X)``, native units."""
        cases = open_cases(self.setup)
        count = min(len(training_keys), MAX_SOURCES)
        chosen = np.linspace(0, len(training_keys) - 1, count).round().astype(int)
        return [cases.seen(training_keys[i]) for i in chosen]


class GINTransform(ImageOnlyTransform):
    """:func:`nnunet_osasis.controls.gin.gin` of a patch ``(C, [D,] H, W)``, a new network at every call.

    It works in any units, hence after normalization too. Only the channels of the image may be there: nnU-Net appends
    the one-hot maps of a previous stage later.

    >>> GINTransform()(image=torch.zeros(1, 8, 8))["image"].shape
    torch.Size([1, 8, 8])

    Args:
        strength: highest share of the random network in the blend, in [0, 1].
    """

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength

    def get_parameters(self, **data_dict: Any) -> dict[str, GINParameters]:
        """Draw from numpy's global state: nnU-Net seeds it anew in every worker, unlike torch's."""
        rng = np.random.default_rng(np.random.randint(2**32, size=4, dtype=np.uint32))
        return {"parameters": draw_gin(rng, len(data_dict["image"]), alpha=(0.0, self.strength))}

    def _apply_to_image(self, img: torch.Tensor, **params: GINParameters) -> torch.Tensor:
        return gin(img, params["parameters"])


class GINTraining(PlansOptions):
    """Change training patches by GIN with probability p, validation patches never.

    Options: ``"osasis": {"probability": 0.5}`` and ``"strength"``, the highest share of the random network in the
    blend (1 by default).
    """

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> BasicTransform:
        """Make nnU-Net's transforms (its hook) with GIN after the last spatial one.

        Later ones blank what lies outside a mask and append the maps of a previous stage; GIN must see neither.
        """
        composed = super().get_training_transforms(*args, **kwargs)  # type: ignore[misc]
        options = self.options
        added = RandomTransform(
            GINTransform(1.0 if options.strength is None else options.strength), options.probability
        )
        spatial = (SpatialTransform, Convert2DTo3DTransform)
        places = [i for i, transform in enumerate(composed.transforms) if isinstance(transform, spatial)]
        composed.transforms.insert(places[-1] + 1 if places else 0, added)
        return composed


class NetworkTraining(PlansOptions):
    """Train a network with four output maps, all of full size, the best first, each of the same weight in the loss.

    The network has an attribute ``deep_supervision``. nnU-Net's loss is kept; a trainer with a loss of its own
    overrides :meth:`_build_loss` and passes it through :meth:`over_all_maps`.
    """

    network: Any
    enable_deep_supervision: bool

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Choose (nnU-Net's hook) between a list of maps for training and one tensor for predictions."""
        self.bare_network.deep_supervision = enabled

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        """One target per map, none of them reduced (nnU-Net's hook)."""
        if not self.enable_deep_supervision:
            return None
        return [[1.0] * len(self.configuration_manager.patch_size)] * OUTPUT_MAPS

    def _build_loss(self) -> nn.Module:
        """nnU-Net's own loss (its hook), each map given the same weight."""
        loss = super()._build_loss()  # type: ignore[misc]
        if self.enable_deep_supervision:
            loss.weight_factors = (1 / OUTPUT_MAPS,) * OUTPUT_MAPS
        return loss

    def over_all_maps(self, loss: nn.Module) -> nn.Module:
        """The mean of ``loss`` over all maps or, without deep supervision, ``loss`` itself."""
        weights = (1 / OUTPUT_MAPS,) * OUTPUT_MAPS
        return DeepSupervisionWrapper(loss, weights) if self.enable_deep_supervision else loss

    @property
    def bare_network(self) -> Any:
        """The network without the wrappers of DDP and torch.compile."""
        network = self.network
        if isinstance(network, DistributedDataParallel):
            network = network.module
        return network._orig_mod if isinstance(network, OptimizedModule) else network
