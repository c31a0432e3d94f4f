"""``-tr nnUNetTrainerGIN``: a control that knows no image of the new site."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_osasis.nnunet.trainer import GINTraining
from nnunet_osasis.trainers.lengths import with_lengths


class nnUNetTrainerGIN(GINTraining, nnUNetTrainer):
    """The stock trainer with GIN among its training transforms: a new random network for every other patch.

    Ouyang et al. 2022. No cache, no reference.
    """


(
    nnUNetTrainerGIN_5epochs,
    nnUNetTrainerGIN_10epochs,
    nnUNetTrainerGIN_20epochs,
) = with_lengths(nnUNetTrainerGIN, 5, 10, 20)
