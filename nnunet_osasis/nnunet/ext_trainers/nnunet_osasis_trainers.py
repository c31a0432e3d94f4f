"""Names nnU-Net can find: every trainer of ``nnunet_osasis.trainers``."""

from nnunet_osasis.trainers import *  # noqa: F403
