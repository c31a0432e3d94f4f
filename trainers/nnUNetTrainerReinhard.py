"""``-tr nnUNetTrainerReinhard``: a control that knows one image of the new site, as the stylizer does."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs import (
    nnUNetTrainer_5epochs,
    nnUNetTrainer_10epochs,
    nnUNetTrainer_20epochs,
)

from nnunet_osasis.nnunet.trainer import ReferenceTraining
from nnunet_osasis.transfer import StyleTransfer


class nnUNetTrainerReinhard(ReferenceTraining, nnUNetTrainer):
    """The stock trainer with cases moved to the reference image by one Reinhard transfer, fitted over them."""

    def style_transfer(self, training_keys: list[str]) -> StyleTransfer:
        from nnunet_osasis.controls import PooledReinhard

        return PooledReinhard.fit(self.sources(training_keys), self.reference())


class nnUNetTrainerReinhard_5epochs(nnUNetTrainerReinhard, nnUNetTrainer_5epochs):
    pass


class nnUNetTrainerReinhard_10epochs(nnUNetTrainerReinhard, nnUNetTrainer_10epochs):
    pass


class nnUNetTrainerReinhard_20epochs(nnUNetTrainerReinhard, nnUNetTrainer_20epochs):
    pass
