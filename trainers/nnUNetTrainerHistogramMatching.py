"""``-tr nnUNetTrainerHistogramMatching``: a control that knows one image of the new site, as the stylizer does."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_osasis.controls import HistogramMatching
from nnunet_osasis.nnunet.trainer import ReferenceTraining
from nnunet_osasis.trainers.lengths import with_lengths
from nnunet_osasis.transfer import StyleTransfer


class nnUNetTrainerHistogramMatching(ReferenceTraining, nnUNetTrainer):
    """The stock trainer with cases matched to the histogram of the reference image."""

    def style_transfer(self, training_keys: list[str]) -> StyleTransfer:
        return HistogramMatching(self.reference())


(
    nnUNetTrainerHistogramMatching_5epochs,
    nnUNetTrainerHistogramMatching_10epochs,
    nnUNetTrainerHistogramMatching_20epochs,
) = with_lengths(nnUNetTrainerHistogramMatching, 5, 10, 20)
