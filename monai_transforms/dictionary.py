"""The dictionary transform: maps keys onto the array one, nothing else."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform

from monai_transforms.array import OSASISStylize
from nnunet_osasis.stylizer import OSASISStylizer


class OSASISStylized(MapTransform):
    """Dictionary-based version of :py:class:`monai_transforms.OSASISStylize`.

    Args:
        keys: the image entries; leave the labels out.
        allow_missing_keys: do not raise if a key is missing.
    """

    backend = OSASISStylize.backend

    def __init__(
        self,
        keys: KeysCollection,
        stylizer: str | Path | OSASISStylizer,
        strength: float | None = None,
        direction: str = "source_to_target",
        slice_axis: int = -1,
        device: str = "cpu",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.stylize = OSASISStylize(stylizer, strength, direction, slice_axis, device)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """``data`` with the images of ``keys`` restyled."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.stylize(result[key])
        return result


OSASISStylizeD = OSASISStylizeDict = OSASISStylized
