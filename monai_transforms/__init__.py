"""Stylization as MONAI transforms: ``OSASISStylize`` (array) and ``OSASISStylized`` (dictionary)."""

from monai_transforms.array import OSASISStylize
from monai_transforms.dictionary import OSASISStylizeD, OSASISStylized, OSASISStylizeDict

__all__ = ["OSASISStylize", "OSASISStylizeD", "OSASISStylizeDict", "OSASISStylized"]
