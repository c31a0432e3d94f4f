"""What a stylized trainer does differently from the stock one, as a mixin that goes before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnunet_osasis.gate import StructureGate
from nnunet_osasis.gate.audit import in_words, read_audit
from nnunet_osasis.gate.calibration import IMAGES
from nnunet_osasis.locks import output_lock
from nnunet_osasis.nnunet.cache import StylizedCache
from nnunet_osasis.nnunet.cases import open_cases, read_like_dataset
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.dataset import StylizedDataset
from nnunet_osasis.nnunet.lookup import find_stylizer
from nnunet_osasis.nnunet.options import OsasisOptions
from nnunet_osasis.sources import best_slice
from nnunet_osasis.transfer import StyleTransfer


class StylizedTraining:
    """Mixin for nnU-Net trainers: training cases are drawn stylized with probability p, validation cases never.

    Everything happens in :meth:`get_tr_and_val_datasets`, before augmentation workers start and before training.
    A trainer with another style transfer overrides :meth:`style_transfer` and nothing else.
    """

    # Set by nnU-Net's trainer, which follows this class in the order of inheritance.
    plans_manager: Any
    configuration_name: str
    dataset_json: dict
    device: Any
    local_rank: int
    current_epoch: int

    def style_transfer(self, training_keys: list[str]) -> StyleTransfer:
        """The transfer to train with; here the OSASIS stylizer the plans name, or the dataset's own."""
        from nnunet_osasis.stylizer import OSASISStylizer

        return OSASISStylizer.from_pretrained(find_stylizer(self.setup, self.options), device=str(self.device))

    def structure_gate(self, transfer: StyleTransfer) -> StructureGate | None:
        """What compares stylized cases with their originals; None for other transfers, and on request."""
        from nnunet_osasis.gate.of_stylizer import stored_gate
        from nnunet_osasis.stylizer import OSASISStylizer

        setup, options = self.setup, self.options
        if not options.gate or not isinstance(transfer, OSASISStylizer):
            return None
        segmenter = None
        if options.segmenter is not None:
            from nnunet_osasis.nnunet.segmenter import NnunetSegmenter

            segmenter = NnunetSegmenter(options.segmenter, device=str(self.device))

        def images() -> list[np.ndarray]:  # all cases, not the fold's: folds share thresholds and cache
            cases = open_cases(setup)
            chosen = np.unique(np.linspace(0, len(cases.keys) - 1, IMAGES).round().astype(int))
            return [best_slice(cases.unnormalized(cases.keys[i])).copy() for i in chosen]

        folder = setup.preprocessed_folder / f"{setup.manager.data_identifier}_osasis_gate"
        if transfer.gate is None:  # the ranks of a DDP run measure once
            with output_lock(folder, "measuring a structure gate", wait=True):
                return stored_gate(folder / f"{transfer.fingerprint[:12]}.json", transfer, images, segmenter=segmenter)
        return stored_gate(folder / f"{transfer.fingerprint[:12]}.json", transfer, images, segmenter=segmenter)

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's hook: the stock datasets, the first one wrapped."""
        training, validation = super().get_tr_and_val_datasets()  # type: ignore[misc]
        options, keys = self.options, list(training.identifiers)
        transfer = self.style_transfer(keys)
        gate = self.structure_gate(transfer)
        cache = StylizedCache(self.setup, transfer, options.strength, gate)
        made = cache.build(keys)
        self.print_to_log_file(  # type: ignore[attr-defined]
            f"Stylized {len(made)} training cases, reused {len(keys) - len(made)}, in {cache.folder}; "
            f"each training case is drawn stylized with probability {options.probability}."
        )
        if gate is not None:
            rows = [row for row in read_audit(cache.audit) if row["case"] in training.identifiers]
            self.print_to_log_file(  # type: ignore[attr-defined]
                f"{in_words(rows).capitalize()}; audit trail: {cache.audit}"
            )
        stylized = StylizedDataset(
            training,
            cache.image_path,
            probability=options.probability,
            seed=options.seed,
            stream=(self.local_rank, self.current_epoch),  # a resumed run goes on with other draws
        )
        return stylized, validation

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
        from nnunet_osasis.stylizer import OSASISStylizer

        return OSASISStylizer.from_pretrained(find_stylizer(setup, options), device="cpu").reference

    def sources(self, training_keys: list[str]) -> list[np.ndarray]:
        """Up to 64 training cases, evenly spaced, ``(C, Z, Y, X)``, native units."""
        return evenly_spaced(open_cases(self.setup), training_keys, self._MOST_SOURCES)


def evenly_spaced(cases: Any, keys: list[str], most: int) -> list[np.ndarray]:
    """At most so many of the cases ``(C, Z, Y, X)``, native units."""
    chosen = np.linspace(0, len(keys) - 1, min(len(keys), most)).round().astype(int)
    return [cases.unnormalized(keys[i]) for i in chosen]
