"""The metrics under the name that earlier documentation gave them; see :mod:`nnunet_osasis.evaluation.metrics`."""

from nnunet_osasis.evaluation.metrics import *  # noqa: F403
from nnunet_osasis.evaluation.metrics import __all__ as __all__
