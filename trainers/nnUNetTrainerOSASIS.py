"""``nnUNetv2_train 501 2d 0 -tr nnUNetTrainerOSASIS``: nnU-Net, with one-shot diffusion-stylized training images."""

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_osasis.nnunet.trainer import StylizedTraining
from nnunet_osasis.trainers.lengths import with_lengths


class nnUNetTrainerOSASIS(StylizedTraining, nnUNetTrainer):
    """The stock trainer; a training case comes stylized with probability p, validation cases never do.

    Options: ``"osasis": {"stylizer": folder, "probability": 0.5, "strength": null, "seed": 0}`` in the
    configuration's part of the plans file; all of them may be left out. Stylized copies are made before training, by
    ``"processes"`` side by side; with ``"on_the_fly": true`` batches are restyled in the training step instead.
    """


(
    nnUNetTrainerOSASIS_1epoch,
    nnUNetTrainerOSASIS_5epochs,
    nnUNetTrainerOSASIS_10epochs,
    nnUNetTrainerOSASIS_20epochs,
    nnUNetTrainerOSASIS_50epochs,
    nnUNetTrainerOSASIS_100epochs,
    nnUNetTrainerOSASIS_250epochs,
    nnUNetTrainerOSASIS_500epochs,
    nnUNetTrainerOSASIS_750epochs,
    nnUNetTrainerOSASIS_2000epochs,
    nnUNetTrainerOSASIS_4000epochs,
    nnUNetTrainerOSASIS_8000epochs,
) = with_lengths(nnUNetTrainerOSASIS, 1, 5, 10, 20, 50, 100, 250, 500, 750, 2000, 4000, 8000)
