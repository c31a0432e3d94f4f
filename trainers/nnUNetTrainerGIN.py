"""A control that sees no image of the new site: a random network over every other training patch, drawn afresh."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs import (
    nnUNetTrainer_5epochs,
    nnUNetTrainer_10epochs,
    nnUNetTrainer_20epochs,
)

from nnunet_osasis.nnunet.trainer import GINTraining


class nnUNetTrainerGIN(GINTraining, nnUNetTrainer):
    """The stock trainer with GIN (Ouyang et al. 2022) among its training transforms; no cache, no reference."""


class nnUNetTrainerGIN_5epochs(nnUNetTrainerGIN, nnUNetTrainer_5epochs):
    pass


class nnUNetTrainerGIN_10epochs(nnUNetTrainerGIN, nnUNetTrainer_10epochs):
    pass


class nnUNetTrainerGIN_20epochs(nnUNetTrainerGIN, nnUNetTrainer_20epochs):
    pass
