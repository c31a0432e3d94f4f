"""Free style transfers: the honest controls of every comparison.

All satisfy :class:`nnunet_osasis.transfer.StyleTransfer`, so they stand wherever the stylizer stands. Those of
``WITH_REFERENCE`` get one reference image, as the stylizer does; those of ``RANDOM`` get none.
"""

from nnunet_osasis.controls.base import Control
from nnunet_osasis.controls.fourier import FourierDomainAdaptation
from nnunet_osasis.controls.gin import GIN
from nnunet_osasis.controls.histogram import HistogramMatching, Identity
from nnunet_osasis.controls.jitter import ColorJitter, HistogramShift
from nnunet_osasis.controls.random import RandomControl
from nnunet_osasis.controls.reinhard import PooledReinhard, Reinhard

WITH_REFERENCE: tuple[type[Control], ...] = (HistogramMatching, PooledReinhard, Reinhard, FourierDomainAdaptation)
RANDOM: tuple[type[RandomControl], ...] = (GIN, ColorJitter, HistogramShift)
CONTROLS: tuple[type[Control], ...] = (Identity, *WITH_REFERENCE, *RANDOM)

ColourJitter = ColorJitter  # its name before

__all__ = [
    "CONTROLS",
    "GIN",
    "RANDOM",
    "WITH_REFERENCE",
    "ColorJitter",
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
