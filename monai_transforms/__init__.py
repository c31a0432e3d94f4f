"""Style transfer as MONAI transforms, for arrays and (``...d``) for dictionaries.

``OSASISStylize`` and ``RandOSASISStylize`` for a stylizer, ``StyleTransform`` and ``RandStyleTransform`` for any
transfer, such as the controls.
"""

from monai_transforms.array import OSASISStylize, RandOSASISStylize
from monai_transforms.dictionary import (
    OSASISStylizeD,
    OSASISStylized,
    OSASISStylizeDict,
    RandOSASISStylizeD,
    RandOSASISStylized,
    RandOSASISStylizeDict,
    RandStyleTransformD,
    RandStyleTransformd,
    RandStyleTransformDict,
    StyleTransformD,
    StyleTransformd,
    StyleTransformDict,
)
from monai_transforms.style import RandStyleTransform, StyleTransform

__all__ = [
    "OSASISStylize",
    "OSASISStylizeD",
    "OSASISStylizeDict",
    "OSASISStylized",
    "RandOSASISStylize",
    "RandOSASISStylizeD",
    "RandOSASISStylizeDict",
    "RandOSASISStylized",
    "RandStyleTransform",
    "RandStyleTransformD",
    "RandStyleTransformDict",
    "RandStyleTransformd",
    "StyleTransform",
    "StyleTransformD",
    "StyleTransformDict",
    "StyleTransformd",
]
