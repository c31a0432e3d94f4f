"""The rows of the demonstration's table."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_osasis.evaluation.demo.settings import SOURCE_DATASET, TRUTH_DATASET


@dataclass(frozen=True)
class Method:
    """One way to train: ``key`` in files, ``label`` for people, nnU-Net trainer (without its length), dataset."""

    key: str
    label: str
    trainer: str
    dataset: tuple[int, str] = SOURCE_DATASET

    def trainer_name(self, length: str) -> str:
        """The trainer of a training length such as ``5epochs``."""
        return f"{self.trainer}_{length}"

    def results_folder(self, length: str, configuration: str) -> str:
        """nnU-Net's folder of the trained model below ``nnUNet_results``."""
        return f"{self.dataset[1]}/{self.trainer_name(length)}__nnUNetPlans__{configuration}"


NONE = Method("none", "no style transfer", "nnUNetTrainer")

HISTOGRAM = Method("histogram", "histogram matching", "nnUNetTrainerHistogramMatching")

REINHARD = Method("reinhard", "pooled Reinhard", "nnUNetTrainerReinhard")

OSASIS = Method("osasis", "OSASIS", "nnUNetTrainerOSASIS")

TRUTH = Method("truth", "true second-scanner images (upper bound)", "nnUNetTrainer", TRUTH_DATASET)

CONTROLS = (HISTOGRAM, REINHARD)

TRANSFERS = (HISTOGRAM, REINHARD, OSASIS)


def methods(*, own_images: bool) -> tuple[Method, ...]:
    """All rows; without known truth there is no upper bound."""
    return (NONE, *TRANSFERS) if own_images else (NONE, *TRANSFERS, TRUTH)
