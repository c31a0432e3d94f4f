"""nnU-Net's own training lengths, stylized: ``-tr nnUNetTrainerOSASIS_250epochs`` and so on."""

from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs import (
    nnUNetTrainer_1epoch,
    nnUNetTrainer_5epochs,
    nnUNetTrainer_10epochs,
    nnUNetTrainer_20epochs,
    nnUNetTrainer_50epochs,
    nnUNetTrainer_100epochs,
    nnUNetTrainer_250epochs,
    nnUNetTrainer_500epochs,
    nnUNetTrainer_750epochs,
    nnUNetTrainer_2000epochs,
    nnUNetTrainer_4000epochs,
    nnUNetTrainer_8000epochs,
)

from nnunet_osasis.trainers.nnUNetTrainerOSASIS import nnUNetTrainerOSASIS


class nnUNetTrainerOSASIS_1epoch(nnUNetTrainerOSASIS, nnUNetTrainer_1epoch):
    pass


class nnUNetTrainerOSASIS_5epochs(nnUNetTrainerOSASIS, nnUNetTrainer_5epochs):
    pass


class nnUNetTrainerOSASIS_10epochs(nnUNetTrainerOSASIS, nnUNetTrainer_10epochs):
    pass


class nnUNetTrainerOSASIS_20epochs(nnUNetTrainerOSASIS, nnUNetTrainer_20epochs):
    pass


class nnUNetTrainerOSASIS_50epochs(nnUNetTrainerOSASIS, nnUNetTrainer_50epochs):
    pass


class nnUNetTrainerOSASIS_100epochs(nnUNetTrainerOSASIS, nnUNetTrainer_100epochs):
    pass


class nnUNetTrainerOSASIS_250epochs(nnUNetTrainerOSASIS, nnUNetTrainer_250epochs):
    pass


class nnUNetTrainerOSASIS_500epochs(nnUNetTrainerOSASIS, nnUNetTrainer_500epochs):
    pass


class nnUNetTrainerOSASIS_750epochs(nnUNetTrainerOSASIS, nnUNetTrainer_750epochs):
    pass


class nnUNetTrainerOSASIS_2000epochs(nnUNetTrainerOSASIS, nnUNetTrainer_2000epochs):
    pass


class nnUNetTrainerOSASIS_4000epochs(nnUNetTrainerOSASIS, nnUNetTrainer_4000epochs):
    pass


class nnUNetTrainerOSASIS_8000epochs(nnUNetTrainerOSASIS, nnUNetTrainer_8000epochs):
    pass
