"""``-tr nnUNetTrainerFDA``: a control that knows one image of the new site, as the stylizer does."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs import (
    nnUNetTrainer_5epochs,
    nnUNetTrainer_10epochs,
    nnUNetTrainer_20epochs,
)

from nnunet_osasis.nnunet.trainer import ReferenceTraining
from nnunet_osasis.transfer import StyleTransfer


class nnUNetTrainerFDA(ReferenceTraining, nnUNetTrainer):
    """The stock trainer with cases moved to the reference image by Fourier domain adaptation."""

    def style_transfer(self, training_keys: list[str]) -> StyleTransfer:
        from nnunet_osasis.controls import FourierDomainAdaptation

        return FourierDomainAdaptation(self.reference())


class nnUNetTrainerFDA_5epochs(nnUNetTrainerFDA, nnUNetTrainer_5epochs):
    pass


class nnUNetTrainerFDA_10epochs(nnUNetTrainerFDA, nnUNetTrainer_10epochs):
    pass


class nnUNetTrainerFDA_20epochs(nnUNetTrainerFDA, nnUNetTrainer_20epochs):
    pass
