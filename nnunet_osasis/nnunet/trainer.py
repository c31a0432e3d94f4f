"""What a stylized trainer does differently from the stock one, as a mixin that goes before it.

What a trainer does differently that changes appearance at random while it trains, as a mixin that goes before it.

What a trainer with another network does differently from the stock one, as a mixin that goes before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
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
from nnunet_osasis.nnunet.case_maker import aligned
from nnunet_osasis.nnunet.cases import open_cases, read_like_dataset
from nnunet_osasis.nnunet.configuration import NnunetConfiguration, find_stylizer, find_stylizers
from nnunet_osasis.nnunet.dataset import StylizedDataset
from nnunet_osasis.nnunet.options import OsasisOptions, options_of
from nnunet_osasis.transfer import StyleTransfer

if TYPE_CHECKING:
    from nnunet_osasis.nnunet.on_the_fly.batches import BatchStyle
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer


class StylizedTraining:
    """Mixin for nnU-Net trainers: training cases are drawn stylized with probability p, validation cases never.

    Stylized copies are made in :meth:`get_tr_and_val_datasets`, before augmentation workers start and before training;
    with ``on_the_fly`` cases are measured there, and :meth:`train_step` restyles batches. A trainer
    with another style transfer overrides :meth:`style_transfer` and nothing else.
    """

    # Set by nnU-Net's trainer, which follows this class in the order of inheritance.
    plans_manager: Any
    configuration_name: str
    dataset_json: dict
    device: Any
    local_rank: int
    current_epoch: int

    _batch_style: BatchStyle | None = None  # of a training on the fly
    _step: tuple[int, int] = (-1, -1)  # epoch and step of the last batch, which seed the draws

    def style_transfer(self, training_keys: list[str]) -> StyleTransfer:
        """The transfer to train with; here the OSASIS stylizer the plans name, or the dataset's own."""
        from nnunet_osasis.stylizer.stylizer import OSASISStylizer

        folder = find_stylizer(self.setup, self.options)
        return aligned(OSASISStylizer.from_pretrained(folder, device=str(self.device)))

    def structure_gate(self, transfer: StyleTransfer) -> StructureGate | None:
        """What compares stylized cases with their originals; None for other transfers, and on request."""
        from nnunet_osasis.stylizer.gating import stored_gate
        from nnunet_osasis.stylizer.stylizer import OSASISStylizer

        setup, options = self.setup, self.options
        if not options.gate or not isinstance(transfer, OSASISStylizer):
            return None
        segmenter = None
        if options.segmenter is not None:
            from nnunet_osasis.nnunet.segmenter import NnunetSegmenter

            segmenter = NnunetSegmenter(options.segmenter, device=str(self.device))

        def images() -> list[np.ndarray]:  # all cases, not the fold's: folds share thresholds and cache
            cases = open_cases(setup)
            keys = [cases.keys[i] for i in chosen_indices(len(cases.keys))]
            return [best_slice(cases.unnormalized(key)).copy() for key in keys]

        folder = setup.preprocessed_folder / f"{setup.manager.data_identifier}_osasis_gate"
        return stored_gate(folder / f"{transfer.fingerprint[:12]}.json", transfer, images, segmenter=segmenter)

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's hook: the stock datasets; without ``on_the_fly`` the first one wrapped."""
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
        self.print_to_log_file(  # type: ignore[attr-defined]
            f"Stylized {len(made)} training cases, reused {len(keys) - len(made)}, in {cache.folder}; "
            f"each training case is drawn stylized with probability {options.probability}."
        )
        if gate is not None:
            self._tell_decisions(cache.audit, keys)
        stylized = StylizedDataset(
            training,
            cache.image_path,
            probability=options.probability,
            seed=options.seed,
            stream=(self.local_rank, self.current_epoch),  # a resumed run goes on with other draws
        )
        return stylized, validation

    def train_step(self, batch: dict) -> dict:
        """nnU-Net's hook: with ``on_the_fly`` it is given restyled data, in fp32 and without gradients. Style comes
        after the loader's augmentations. ``validation_step`` is nnU-Net's own.
        """
        if self._batch_style is not None:
            epoch, last = self.current_epoch, self._step
            step = last[1] + 1 if last[0] == epoch else 0
            self._step = epoch, step
            batch = batch | {"data": self._batch_style(batch["data"], batch["keys"], epoch=epoch, step=step)}
        return super().train_step(batch)  # type: ignore[misc]

    def _prepare_on_the_fly(self, keys: list[str]) -> BatchStyle:
        """Stylizers on the training device, every case measured. Raises ``OsasisError`` when either cannot be done."""
        from nnunet_osasis.nnunet.on_the_fly.batches import BatchStyle
        from nnunet_osasis.nnunet.on_the_fly.measurements import Measurements
        from nnunet_osasis.nnunet.on_the_fly.renormalize import ChannelRules
        from nnunet_osasis.nnunet.on_the_fly.transfer import OnePassTransfer

        options, setup = self.options, self.setup
        rules = ChannelRules.of(setup)
        transfers, measured = [], []
        for stylizer in self.stylizers(keys):
            transfer = OnePassTransfer(stylizer)
            gate = self.structure_gate(stylizer)
            strength = stylizer.config.strength if options.strength is None else options.strength
            measurements = Measurements(
                setup, transfer, strength, gate, device=str(self.device), processes=options.processes
            )
            cases, made = measurements.build(keys)
            stylizer.to("cpu")  # its networks have no part in the steps, and the device's memory is for training
            transfers.append(transfer)
            measured.append(cases)
            self.print_to_log_file(  # type: ignore[attr-defined]
                f"On the fly: {len(made)} training cases measured, {len(keys) - len(made)} known, in "
                f"{measurements.folder}; a sample is restyled with probability {options.probability} by a strength "
                f"drawn from [0, {strength:g}]."
            )
            if gate is not None:
                self._tell_decisions(measurements.audit, keys)
        return BatchStyle(
            transfers, measured, rules,
            probability=options.probability, seed=(options.seed, self.local_rank), device=self.device,
        )  # fmt: skip

    def stylizers(self, training_keys: list[str]) -> list[OSASISStylizer]:
        """The stylizers of a training on the fly, all that the plans name, on the training device.

        Raises ``OsasisError`` for a trainer whose transfer is none.
        """
        from nnunet_osasis.stylizer.stylizer import OSASISStylizer

        if type(self).style_transfer is not StylizedTraining.style_transfer:
            raise OsasisError(
                '"on_the_fly" needs a stylizer',
                found=f"{type(self).__name__}, which takes another transfer",
                remedy='Leave "on_the_fly" out for this trainer.',
            )
        folders = find_stylizers(self.setup, self.options)
        return [aligned(OSASISStylizer.from_pretrained(folder, device=str(self.device))) for folder in folders]

    def _tell_decisions(self, audit: Path, keys: list[str]) -> None:
        rows = [row for row in read_audit(audit) if row["case"] in keys]
        self.print_to_log_file(f"{in_words(rows).capitalize()}; audit trail: {audit}")  # type: ignore[attr-defined]

    @property
    def setup(self) -> NnunetConfiguration:
        """The configuration this trainer runs."""
        return NnunetConfiguration(self.configuration_name, self.plans_manager, self.dataset_json)

    @property
    def options(self) -> OsasisOptions:
        """What the plans say about stylization."""
        setup = self.setup
        return OsasisOptions.from_configuration(setup.manager.configuration, relative_to=setup.preprocessed_folder)


class ReferenceTraining(StylizedTraining):
    """For controls that need no training of their own: one reference image, perhaps some source images."""

    _MOST_SOURCES = 64  # enough for pooled statistics, and small enough for memory

    def reference(self) -> np.ndarray:
        """The target-style image, native units: ``"osasis": {"reference": path}`` of the plans, read as the
        dataset is, ``(C, Z, Y, X)``; without it the reference of the stylizer, ``(C, H, W)``.
        """
        setup, options = self.setup, self.options
        if options.reference is not None:
            return read_like_dataset(options.reference, setup)
        from nnunet_osasis.stylizer.stylizer import OSASISStylizer

        return OSASISStylizer.from_pretrained(find_stylizer(setup, options), device="cpu").reference

    def sources(self, training_keys: list[str]) -> list[np.ndarray]:
        """Up to 64 training cases, evenly spaced, ``(C, Z, Y, X)``, native units."""
        cases = open_cases(self.setup)
        count = min(len(training_keys), self._MOST_SOURCES)
        chosen = np.linspace(0, len(training_keys) - 1, count).round().astype(int)
        return [cases.unnormalized(training_keys[i]) for i in chosen]


_SPATIAL = (SpatialTransform, Convert2DTo3DTransform)


class GINTransform(ImageOnlyTransform):
    """:func:`nnunet_osasis.controls.gin.gin` of a patch ``(C, [D,] H, W)``, a new network at every call.

    It works in any units, hence after normalization too. Only an image's own channels may be there: nnU-Net appends the
    one-hot maps of a previous stage later.

    Args:
        strength: the highest share of the random network in the blend, in [0, 1].
    """

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength

    def get_parameters(self, **data_dict: Any) -> dict[str, GINParameters]:
        """Drawn from numpy's global state, which nnU-Net seeds anew in every worker (torch's is the parent's copy)."""
        rng = np.random.default_rng(np.random.randint(2**32, size=4, dtype=np.uint32))
        return {"parameters": draw_gin(rng, len(data_dict["image"]), alpha=(0.0, self.strength))}

    def _apply_to_image(self, img: torch.Tensor, **params: GINParameters) -> torch.Tensor:
        return gin(img, params["parameters"])


class GINTraining:
    """Mixin for nnU-Net trainers: a training patch goes through GIN with probability p, a validation patch never does.

    Options: ``"osasis": {"probability": 0.5}`` and ``"strength"``, the highest share of the random network in the
    blend (1 by default).
    """

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> BasicTransform:
        """nnU-Net's hook: its own transforms, with GIN between the spatial ones and those of intensity.

        Later ones blank what lies outside a mask and append the maps of a previous stage, so GIN sees neither.
        """
        transforms = super().get_training_transforms(*args, **kwargs)  # type: ignore[misc]
        options = self.options
        added = GINTransform(1.0 if options.strength is None else options.strength)
        return with_transform(transforms, RandomTransform(added, options.probability))

    @property
    def options(self) -> OsasisOptions:
        """What the plans say to this trainer."""
        return options_of(self)


def with_transform(transforms: ComposeTransforms, added: BasicTransform) -> ComposeTransforms:
    """nnU-Net's training transforms with ``added`` after the last spatial one (before mirroring)."""
    places = [i for i, transform in enumerate(transforms.transforms) if isinstance(transform, _SPATIAL)]
    transforms.transforms.insert(places[-1] + 1 if places else 0, added)
    return transforms


_MAPS = 4  # of PraNet and of UNet++ alike


class NetworkTraining:
    """Mixin for networks whose four maps are all of full size, the best first, weighed alike as in both papers.

    The network has an attribute ``deep_supervision``. nnU-Net's loss is kept; a trainer with a loss of its own
    overrides :meth:`_build_loss` and passes it through :meth:`over_all_maps`.
    """

    # Set by nnU-Net's trainer, which follows this class in the order of inheritance.
    network: Any
    configuration_manager: Any
    enable_deep_supervision: bool

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """nnU-Net's hook: a list of maps while training, one tensor for predictions."""
        self.bare_network.deep_supervision = enabled

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        """nnU-Net's hook: one target per map, none of them reduced."""
        if not self.enable_deep_supervision:
            return None
        return [[1.0] * len(self.configuration_manager.patch_size)] * _MAPS

    def _build_loss(self) -> nn.Module:
        """nnU-Net's hook: its own loss, each map given the same weight."""
        loss = super()._build_loss()  # type: ignore[misc]
        if self.enable_deep_supervision:
            loss.weight_factors = (1 / _MAPS,) * _MAPS
        return loss

    def over_all_maps(self, loss: nn.Module) -> nn.Module:
        """``loss`` of one map, made the mean over the four where there are four."""
        from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

        return DeepSupervisionWrapper(loss, (1 / _MAPS,) * _MAPS) if self.enable_deep_supervision else loss

    @property
    def bare_network(self) -> Any:
        """The network without the wrappers of DDP and torch.compile."""
        network = self.network
        if isinstance(network, DistributedDataParallel):
            network = network.module
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    @property
    def options(self) -> OsasisOptions:
        """What the plans say to this trainer."""
        return options_of(self)
