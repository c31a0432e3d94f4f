"""``-tr nnUNetTrainerReinhard``: a control that knows one image of the new site, as the stylizer does."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_osasis.controls import PooledReinhard
from nnunet_osasis.nnunet.trainer import ReferenceTraining
from nnunet_osasis.trainers.lengths import with_lengths
from nnunet_osasis.transfer import StyleTransfer


class nnUNetTrainerReinhard(ReferenceTraining, nnUNetTrainer):
    """The stock trainer with cases moved to the reference image by one Reinhard transfer, fitted over them."""

    def style_transfer(self, training_keys: list[str]) -> StyleTransfer:
        return PooledReinhard.fit(self.sources(training_keys), self.reference())


(
    nnUNetTrainerReinhard_5epochs,
    nnUNetTrainerReinhard_10epochs,
    nnUNetTrainerReinhard_20epochs,
) = with_lengths(nnUNetTrainerReinhard, 5, 10, 20)
