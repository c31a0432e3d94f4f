"""The dictionary transforms: they map keys onto the array ones, and name the key in errors."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform, Randomizable

from monai_transforms.array import OSASISStylize, RandOSASISStylize
from monai_transforms.style import RandStyle, RandStyleTransform, StyleTransform
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.transfer import StyleTransfer


def _apply(transform: Any, data: dict[Hashable, Any], key: Hashable, **options: Any) -> None:
    try:
        data[key] = transform(data[key], **options)
    except OsasisError as error:
        raise OsasisError(f"key {key!r}: {error.rule}", found=error.found, remedy=error.remedy) from error


class _Stylized(MapTransform):
    """Maps ``keys`` onto an array transform."""

    backend = StyleTransform.backend

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool, stylize: StyleTransform) -> None:
        super().__init__(keys, allow_missing_keys)
        self.stylize = stylize

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """``data`` with the images of ``keys`` restyled; raises ``OsasisError`` naming the key."""
        result = dict(data)
        for key in self.key_iterator(result):
            _apply(self.stylize, result, key)
        return result


class _RandStylized(Randomizable, MapTransform):
    """Maps ``keys`` onto a random array transform; all keys share one draw."""

    backend = RandStyle.backend

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool, stylize: RandStyle) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.stylize = stylize

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Any:
        """Seed the draws; returns self."""
        super().set_random_state(seed, state)
        self.stylize.set_random_state(seed, state)
        return self

    def randomize(self, data: Any | None = None) -> None:
        """One draw for all keys (for a batch: one per sample)."""
        self.stylize.randomize(data)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """``data`` with the images of ``keys`` restyled, or as it is; raises ``OsasisError`` naming the key."""
        result = dict(data)
        present = list(self.key_iterator(result))
        if present:
            self.randomize(result[present[0]])
        for key in present:
            _apply(self.stylize, result, key, randomize=False)
        return result


class StyleTransformd(_Stylized):
    """Dictionary-based version of :py:class:`monai_transforms.StyleTransform`.

    Args:
        keys: the image entries; leave the labels out.
        transfer, strength, slice_axis, axes, batched: as there.
        allow_missing_keys: do not raise if a key is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transfer: StyleTransfer,
        strength: float | None = None,
        slice_axis: int | str = "auto",
        axes: str = "auto",
        batched: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys, StyleTransform(transfer, strength, slice_axis, axes, batched))


class RandStyleTransformd(_RandStylized):
    """Dictionary-based version of :py:class:`monai_transforms.RandStyleTransform`; all keys share one draw.

    Args:
        keys: the image entries; leave the labels out.
        transfer, prob, strength, slice_axis, axes, batched: as there.
        allow_missing_keys: do not raise if a key is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transfer: StyleTransfer,
        prob: float = 0.5,
        strength: float | tuple[float, float] = 1.0,
        slice_axis: int | str = "auto",
        axes: str = "auto",
        batched: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        stylize = RandStyleTransform(transfer, prob, strength, slice_axis, axes, batched)
        super().__init__(keys, allow_missing_keys, stylize)


class OSASISStylized(_Stylized):
    """Dictionary-based version of :py:class:`monai_transforms.OSASISStylize`.

    Args:
        keys: the image entries; leave the labels out.
        stylizer, strength, direction, readout, slice_axis, axes, device, batched, gate, audit: as
            there.
        allow_missing_keys: do not raise if a key is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        stylizer: str | Path | OSASISStylizer,
        strength: float | None = None,
        direction: str = "source_to_target",
        readout: str | None = None,
        slice_axis: int | str = "auto",
        axes: str = "auto",
        device: str | None = None,
        batched: bool = False,
        allow_missing_keys: bool = False,
        gate: bool | None = None,
        audit: str | Path | None = None,
    ) -> None:
        stylize = OSASISStylize(stylizer, strength, direction, readout, slice_axis, axes, device, batched, gate, audit)
        super().__init__(keys, allow_missing_keys, stylize)


class RandOSASISStylized(_RandStylized):
    """Dictionary-based version of :py:class:`monai_transforms.RandOSASISStylize`; all keys share one draw.

    Args:
        keys: the image entries; leave the labels out.
        stylizer, prob, strength, direction, readout, slice_axis, axes, device, batched, gate, audit: as
            there.
        allow_missing_keys: do not raise if a key is missing.
    """

    def __init__(
        self,
        keys: KeysCollection,
        stylizer: str | Path | OSASISStylizer,
        prob: float = 0.5,
        strength: float | tuple[float, float] = (0.5, 1.0),
        direction: str = "source_to_target",
        readout: str | None = None,
        slice_axis: int | str = "auto",
        axes: str = "auto",
        device: str | None = None,
        batched: bool = False,
        allow_missing_keys: bool = False,
        gate: bool | None = None,
        audit: str | Path | None = None,
    ) -> None:
        stylize = RandOSASISStylize(
            stylizer, prob, strength, direction, readout, slice_axis, axes, device, batched, gate, audit
        )
        super().__init__(keys, allow_missing_keys, stylize)


StyleTransformD = StyleTransformDict = StyleTransformd
RandStyleTransformD = RandStyleTransformDict = RandStyleTransformd
OSASISStylizeD = OSASISStylizeDict = OSASISStylized
RandOSASISStylizeD = RandOSASISStylizeDict = RandOSASISStylized
