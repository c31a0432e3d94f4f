"""nnU-Net trainers of nnunet-osasis. Each file holds only what differs from the stock trainer."""

from nnunet_osasis.trainers.nnUNetTrainerFDA import (
    nnUNetTrainerFDA,
    nnUNetTrainerFDA_5epochs,
    nnUNetTrainerFDA_20epochs,
)
from nnunet_osasis.trainers.nnUNetTrainerGIN import (
    nnUNetTrainerGIN,
    nnUNetTrainerGIN_5epochs,
    nnUNetTrainerGIN_20epochs,
)
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
from nnunet_osasis.trainers.nnUNetTrainerPraNet import (
    nnUNetTrainerOSASISPraNet,
    nnUNetTrainerOSASISPraNet_5epochs,
    nnUNetTrainerOSASISPraNet_20epochs,
    nnUNetTrainerOSASISPraNet_100epochs,
    nnUNetTrainerPraNet,
    nnUNetTrainerPraNet_5epochs,
    nnUNetTrainerPraNet_20epochs,
    nnUNetTrainerPraNet_100epochs,
)
from nnunet_osasis.trainers.nnUNetTrainerReinhard import (
    nnUNetTrainerReinhard,
    nnUNetTrainerReinhard_5epochs,
    nnUNetTrainerReinhard_20epochs,
)
from nnunet_osasis.trainers.nnUNetTrainerUNetPlusPlus import (
    nnUNetTrainerOSASISUNetPlusPlus,
    nnUNetTrainerOSASISUNetPlusPlus_5epochs,
    nnUNetTrainerOSASISUNetPlusPlus_20epochs,
    nnUNetTrainerOSASISUNetPlusPlus_100epochs,
    nnUNetTrainerUNetPlusPlus,
    nnUNetTrainerUNetPlusPlus_5epochs,
    nnUNetTrainerUNetPlusPlus_20epochs,
    nnUNetTrainerUNetPlusPlus_100epochs,
)

__all__ = [
    "nnUNetTrainerFDA",
    "nnUNetTrainerFDA_5epochs",
    "nnUNetTrainerFDA_20epochs",
    "nnUNetTrainerGIN",
    "nnUNetTrainerGIN_5epochs",
    "nnUNetTrainerGIN_20epochs",
    "nnUNetTrainerHistogramMatching",
    "nnUNetTrainerHistogramMatching_5epochs",
    "nnUNetTrainerHistogramMatching_20epochs",
    "nnUNetTrainerOSASIS",
    "nnUNetTrainerOSASISPraNet",
    "nnUNetTrainerOSASISPraNet_5epochs",
    "nnUNetTrainerOSASISPraNet_20epochs",
    "nnUNetTrainerOSASISPraNet_100epochs",
    "nnUNetTrainerOSASISUNetPlusPlus",
    "nnUNetTrainerOSASISUNetPlusPlus_5epochs",
    "nnUNetTrainerOSASISUNetPlusPlus_20epochs",
    "nnUNetTrainerOSASISUNetPlusPlus_100epochs",
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
    "nnUNetTrainerPraNet",
    "nnUNetTrainerPraNet_5epochs",
    "nnUNetTrainerPraNet_20epochs",
    "nnUNetTrainerPraNet_100epochs",
    "nnUNetTrainerReinhard",
    "nnUNetTrainerReinhard_5epochs",
    "nnUNetTrainerReinhard_20epochs",
    "nnUNetTrainerUNetPlusPlus",
    "nnUNetTrainerUNetPlusPlus_5epochs",
    "nnUNetTrainerUNetPlusPlus_20epochs",
    "nnUNetTrainerUNetPlusPlus_100epochs",
]
