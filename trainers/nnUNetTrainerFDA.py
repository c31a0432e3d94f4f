"""``-tr nnUNetTrainerFDA``: a control that knows one image of the new site, as the stylizer does."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_osasis.controls import FourierDomainAdaptation
from nnunet_osasis.nnunet.trainer import ReferenceTraining
from nnunet_osasis.trainers.lengths import with_lengths
from nnunet_osasis.transfer import StyleTransfer


class nnUNetTrainerFDA(ReferenceTraining, nnUNetTrainer):
    """The stock trainer with cases moved to the reference image by Fourier domain adaptation."""

    def style_transfer(self, training_keys: list[str]) -> StyleTransfer:
        return FourierDomainAdaptation(self.reference())


(
    nnUNetTrainerFDA_5epochs,
    nnUNetTrainerFDA_10epochs,
    nnUNetTrainerFDA_20epochs,
) = with_lengths(nnUNetTrainerFDA, 5, 10, 20)
