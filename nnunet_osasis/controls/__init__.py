"""Free style transfers that see what the stylizer sees: the honest controls of every comparison.

All satisfy :class:`nnunet_osasis.transfer.StyleTransfer`, so they stand wherever the stylizer stands.
"""

from nnunet_osasis.controls.histogram import HistogramMatching
from nnunet_osasis.controls.identity import Identity
from nnunet_osasis.controls.reinhard import PooledReinhard

__all__ = ["HistogramMatching", "Identity", "PooledReinhard"]
