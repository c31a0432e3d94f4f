"""``-tr nnUNetTrainerGIN``: a control that knows no image of the new site."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs import (
    nnUNetTrainer_5epochs,
    nnUNetTrainer_10epochs,
    nnUNetTrainer_20epochs,
)

from nnunet_osasis.nnunet.trainer import GINTraining


class nnUNetTrainerGIN(GINTraining, nnUNetTrainer):
    """The stock trainer with GIN among its training transforms: a new random network for every other patch.

    Ouyang et al. 2022. No cache, no reference.
    """


class nnUNetTrainerGIN_5epochs(nnUNetTrainerGIN, nnUNetTrainer_5epochs):
    pass


class nnUNetTrainerGIN_10epochs(nnUNetTrainerGIN, nnUNetTrainer_10epochs):
    pass


class nnUNetTrainerGIN_20epochs(nnUNetTrainerGIN, nnUNetTrainer_20epochs):
    pass
