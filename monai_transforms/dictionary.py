"""The dictionary transforms: they map keys onto the array ones, and name the key in errors."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform, Randomizable

from monai_transforms.array import OSASISStylize, RandOSASISStylize
from monai_transforms.style import RandStyle, RandStyleTransform, StyleTransform
from nnunet_osasis.errors import OsasisError


class _Mapped(MapTransform):
    """Maps ``keys`` onto an array transform.

    Args:
        keys: the image entries; leave the labels out.
        arguments: of the array transform.
        allow_missing_keys: do not raise if a key is missing.
        options: of the array transform.
    """

    array: ClassVar[type[StyleTransform] | type[RandStyle]]
    backend = StyleTransform.backend

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if hasattr(cls, "array"):  # what help() and editors show
            own = inspect.signature(_Mapped.__init__).parameters
            parts = list(inspect.signature(cls.array).parameters.values())
            keys = own["keys"].replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)
            cls.__signature__ = inspect.Signature([keys, *parts, own["allow_missing_keys"]])

    def __init__(self, keys: KeysCollection, *arguments: Any, allow_missing_keys: bool = False, **options: Any) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.stylize = self.array(*arguments, **options)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """``data`` with the images of ``keys`` restyled; raises ``OsasisError`` naming the key."""
        return self._apply(dict(data), list(self.key_iterator(dict(data))))

    def _apply(self, data: dict[Hashable, Any], keys: list[Hashable], **options: Any) -> dict[Hashable, Any]:
        for key in keys:
            try:
                data[key] = self.stylize(data[key], **options)
            except OsasisError as error:
                raise OsasisError(f"key {key!r}: {error.rule}", found=error.found, remedy=error.remedy) from error
        return data


class _RandMapped(Randomizable, _Mapped):
    """Maps ``keys`` onto a random array transform; all keys share one draw."""

    stylize: RandStyle

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
        keys = list(self.key_iterator(result))
        if keys:
            self.randomize(result[keys[0]])
        return self._apply(result, keys, randomize=False)


class StyleTransformd(_Mapped):
    """Dictionary-based version of :py:class:`monai_transforms.StyleTransform`, whose arguments follow ``keys``.

    ``allow_missing_keys=True`` leaves missing keys out.
    """

    array = StyleTransform


class RandStyleTransformd(_RandMapped):
    """Dictionary-based version of :py:class:`monai_transforms.RandStyleTransform`, whose arguments follow ``keys``.

    All keys share one draw. ``allow_missing_keys=True`` leaves missing keys out.
    """

    array = RandStyleTransform


class OSASISStylized(_Mapped):
    """Dictionary-based version of :py:class:`monai_transforms.OSASISStylize`, whose arguments follow ``keys``.

    Leave labels out of the keys. ``allow_missing_keys=True`` leaves missing keys out.
    """

    array = OSASISStylize


class RandOSASISStylized(_RandMapped):
    """Dictionary-based version of :py:class:`monai_transforms.RandOSASISStylize`, whose arguments follow ``keys``.

    All keys share one draw; leave labels out of them. ``allow_missing_keys=True`` leaves missing keys out.
    """

    array = RandOSASISStylize


StyleTransformD = StyleTransformDict = StyleTransformd
RandStyleTransformD = RandStyleTransformDict = RandStyleTransformd
OSASISStylizeD = OSASISStylizeDict = OSASISStylized
RandOSASISStylizeD = RandOSASISStylizeDict = RandOSASISStylized
