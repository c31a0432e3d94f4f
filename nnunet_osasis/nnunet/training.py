"""What a stylized trainer does differently from the stock one, as a mixin that goes before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import StructureGate
from nnunet_osasis.gate.audit import in_words, read_audit
from nnunet_osasis.gate.calibration import chosen_indices
from nnunet_osasis.images.slices import best_slice
from nnunet_osasis.nnunet.cache import StylizedCache
from nnunet_osasis.nnunet.case_making import aligned
from nnunet_osasis.nnunet.cases import open_cases, read_like_dataset
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.dataset import StylizedDataset
from nnunet_osasis.nnunet.lookup import find_stylizer, find_stylizers
from nnunet_osasis.nnunet.options import OsasisOptions
from nnunet_osasis.transfer import StyleTransfer

if TYPE_CHECKING:
    from nnunet_osasis.nnunet.on_the_fly import BatchStyle
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
        from nnunet_osasis.nnunet.measurements import Measurements
        from nnunet_osasis.nnunet.on_the_fly import BatchStyle
        from nnunet_osasis.nnunet.one_pass_transfer import OnePassTransfer
        from nnunet_osasis.nnunet.renormalize import ChannelRules

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
