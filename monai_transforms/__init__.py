"""Stylization as MONAI transforms: ``OSASISStylize`` and ``RandOSASISStylize`` (arrays), ``...d`` (dictionaries)."""

from monai_transforms.array import OSASISStylize, RandOSASISStylize
from monai_transforms.dictionary import (
    OSASISStylizeD,
    OSASISStylized,
    OSASISStylizeDict,
    RandOSASISStylizeD,
    RandOSASISStylized,
    RandOSASISStylizeDict,
)

__all__ = [
    "OSASISStylize",
    "OSASISStylizeD",
    "OSASISStylizeDict",
    "OSASISStylized",
    "RandOSASISStylize",
    "RandOSASISStylizeD",
    "RandOSASISStylizeDict",
    "RandOSASISStylized",
]
