"""``-tr nnUNetTrainerHistogramMatching``: a control that knows one image of the new site, as the stylizer does."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs import (
    nnUNetTrainer_5epochs,
    nnUNetTrainer_10epochs,
    nnUNetTrainer_20epochs,
)

from nnunet_osasis.nnunet.trainer import ReferenceTraining
from nnunet_osasis.transfer import StyleTransfer


class nnUNetTrainerHistogramMatching(ReferenceTraining, nnUNetTrainer):
    """The stock trainer with cases matched to the histogram of the reference image."""

    def style_transfer(self, training_keys: list[str]) -> StyleTransfer:
        from nnunet_osasis.controls import HistogramMatching

        return HistogramMatching(self.reference())


class nnUNetTrainerHistogramMatching_5epochs(nnUNetTrainerHistogramMatching, nnUNetTrainer_5epochs):
    pass


class nnUNetTrainerHistogramMatching_10epochs(nnUNetTrainerHistogramMatching, nnUNetTrainer_10epochs):
    pass


class nnUNetTrainerHistogramMatching_20epochs(nnUNetTrainerHistogramMatching, nnUNetTrainer_20epochs):
    pass
