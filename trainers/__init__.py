"""nnU-Net trainers of nnunet-osasis. Each file holds only what differs from the stock trainer."""

from nnunet_osasis.trainers.nnUNetTrainerHistogramMatching import (
    nnUNetTrainerHistogramMatching,
    nnUNetTrainerHistogramMatching_5epochs,
    nnUNetTrainerHistogramMatching_20epochs,
)
from nnunet_osasis.trainers.nnUNetTrainerOSASIS import nnUNetTrainerOSASIS
from nnunet_osasis.trainers.nnUNetTrainerOSASIS_Xepochs import (
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
)
from nnunet_osasis.trainers.nnUNetTrainerReinhard import (
    nnUNetTrainerReinhard,
    nnUNetTrainerReinhard_5epochs,
    nnUNetTrainerReinhard_20epochs,
)

__all__ = [
    "nnUNetTrainerHistogramMatching",
    "nnUNetTrainerHistogramMatching_5epochs",
    "nnUNetTrainerHistogramMatching_20epochs",
    "nnUNetTrainerOSASIS",
    "nnUNetTrainerOSASIS_1epoch",
    "nnUNetTrainerOSASIS_5epochs",
    "nnUNetTrainerOSASIS_10epochs",
    "nnUNetTrainerOSASIS_20epochs",
    "nnUNetTrainerOSASIS_50epochs",
    "nnUNetTrainerOSASIS_100epochs",
    "nnUNetTrainerOSASIS_250epochs",
    "nnUNetTrainerOSASIS_500epochs",
    "nnUNetTrainerOSASIS_750epochs",
    "nnUNetTrainerOSASIS_2000epochs",
    "nnUNetTrainerOSASIS_4000epochs",
    "nnUNetTrainerOSASIS_8000epochs",
    "nnUNetTrainerReinhard",
    "nnUNetTrainerReinhard_5epochs",
    "nnUNetTrainerReinhard_20epochs",
]
