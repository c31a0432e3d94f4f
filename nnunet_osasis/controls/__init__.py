"""Free style transfers: the honest controls of every comparison.

All satisfy :class:`nnunet_osasis.transfer.StyleTransfer`, so they stand wherever the stylizer stands. The first
group sees what the stylizer sees, one reference image; the random ones see none.
"""

from nnunet_osasis.controls.base import Control
from nnunet_osasis.controls.fourier import FourierDomainAdaptation
from nnunet_osasis.controls.gin import GIN
from nnunet_osasis.controls.histogram import HistogramMatching, Identity
from nnunet_osasis.controls.jitter import ColourJitter, HistogramShift
from nnunet_osasis.controls.random import RandomControl
from nnunet_osasis.controls.reinhard import PooledReinhard, Reinhard

WITH_REFERENCE: tuple[type[Control], ...] = (HistogramMatching, PooledReinhard, Reinhard, FourierDomainAdaptation)
RANDOM: tuple[type[RandomControl], ...] = (GIN, ColourJitter, HistogramShift)
CONTROLS: tuple[type[Control], ...] = (Identity, *WITH_REFERENCE, *RANDOM)

__all__ = [
    "CONTROLS",
    "GIN",
    "RANDOM",
    "WITH_REFERENCE",
    "ColourJitter",
    "Control",
    "FourierDomainAdaptation",
    "HistogramMatching",
    "HistogramShift",
    "Identity",
    "PooledReinhard",
    "RandomControl",
    "Reinhard",
]
