"""Keep the import path that the documents showed first; the code is in ``nnunet_osasis.evaluation.metrics``."""

from nnunet_osasis.evaluation import metrics
from nnunet_osasis.evaluation.metrics import *  # noqa: F403

__all__ = metrics.__all__
