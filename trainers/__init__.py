"""nnU-Net trainers of nnunet-osasis. Each file holds only what differs from the stock trainer.

nnU-Net finds a trainer by its name in ``nnunet_osasis.nnunet.ext_trainers``, which takes all names from here. Classes
are pickled by the file that defines them.
"""

from nnunet_osasis.trainers.nnUNetTrainerFDA import *  # noqa: F403
from nnunet_osasis.trainers.nnUNetTrainerGIN import *  # noqa: F403
from nnunet_osasis.trainers.nnUNetTrainerHistogramMatching import *  # noqa: F403
from nnunet_osasis.trainers.nnUNetTrainerOSASIS import *  # noqa: F403
from nnunet_osasis.trainers.nnUNetTrainerPraNet import *  # noqa: F403
from nnunet_osasis.trainers.nnUNetTrainerReinhard import *  # noqa: F403
from nnunet_osasis.trainers.nnUNetTrainerUNetPlusPlus import *  # noqa: F403

# Of all that the files import, only the classes that they define.
__all__ = sorted(
    name for name, value in list(globals().items()) if isinstance(value, type) and value.__module__.startswith(__name__)
)
