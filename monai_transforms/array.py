"""The array transforms: ``OSASISStylize`` and ``RandOSASISStylize``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config.type_definitions import NdarrayOrTensor

from monai_transforms.gating import Gating
from monai_transforms.loading import StylizerHandle
from monai_transforms.style import RandStyle, StyleTransform
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.images.units import UnitsError, check_units
from nnunet_osasis.stylizer.config import DIRECTIONS
from nnunet_osasis.stylizer.names import READOUTS
from nnunet_osasis.stylizer.stylizer import OSASISStylizer


class OSASISStylize(StyleTransform):
    """Restyle a channel-first image ``(C, H, W)`` or volume ``(C, H, W, D)`` in native units with a trained stylizer.

    Deterministic, hence cached by ``CacheDataset``, ``PersistentDataset`` and ``CacheNTransDataset``; give the latter
    two ``hash_transform=pickle_hashing``, and another stylizer is another cache entry. Kind, dtype, device and
    MetaTensor metadata of the input are kept. It is no ``LazyTransform``: pending spatial operations are executed
    before it. It cannot be inverted: ``Invertd`` undoes the spatial transforms around it and leaves the style.

    Args:
        stylizer: a folder made by ``osasis-pretrain-stylizer``, or an ``OSASISStylizer``.
        strength: in [0, 1]; None takes the stylizer's own.
        direction: ``source_to_target`` or ``target_to_source``.
        readout: overrides the stylizer's own, see ``nnunet_osasis.stylizer.names.READOUTS``.
        slice_axis: spatial axis (0, 1 or 2) that volumes are cut along. ``auto``: the axis of the coarsest spacing of a
            MetaTensor, the last axis where spacing is isotropic or unknown, an only axis of length 1.
        axes: what the spatial axes are. ``xyz``: ``(X, Y[, Z])``, as MONAI's readers return files; ``hwd``: rows first,
            ``(H, W[, D])``; ``auto``: as the traces of reader and spatial transforms in a MetaTensor say, ``hwd``
            for what names no file. Read-outs that run networks, and maps with a slope across the picture, must see
            images the way up they were trained on: where the traces leave that open they refuse. Others do not care.
        device: for a stylizer folder, where it works (``cpu`` by default).
        batched: inputs have a batch axis first, ``(B, C, H, W[, D])``, as a DataLoader returns them.
        gate: compare every result with its image by the structure gate: what fails is weakened, and stays as it is
            when that fails too. None: by the package's least scores where the stylizer has no thresholds for its
            read-out; True refuses such a stylizer.
        audit: a file that gets a line of JSON for every decision (``osasis-info --audit`` reads it).
        value_range: the values that an earlier transform made of the lowest and the highest value of the stylizer's
            range, such as ``(0, 1)`` after ``ScaleIntensityRanged``: images are brought to the stylizer's units and
            back. A stylizer that takes its range from each image needs no conversion. None: native units.

    Raises:
        OsasisError: no stylizer there, unknown options; on use: wrong channel count or rank, NaN, empty, boolean or
            constant images, values that cannot be in the stylizer's units or in ``value_range``, axes that cannot be
            told, a batch without ``batched``, CUDA in a forked worker.
    """

    def __init__(
        self,
        stylizer: str | Path | OSASISStylizer,
        strength: float | None = None,
        direction: str = "source_to_target",
        readout: str | None = None,
        slice_axis: int | str = "auto",
        axes: str = "auto",
        device: str | None = None,
        batched: bool = False,
        gate: bool | None = None,
        audit: str | Path | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        if direction not in DIRECTIONS:
            raise OsasisError("direction must be known", found=direction, remedy=f"Use one of {DIRECTIONS}.")
        if readout is not None and readout not in READOUTS:
            raise OsasisError("The read-out must be known", found=readout, remedy=f"Use one of {READOUTS}.")
        self.handle = StylizerHandle(stylizer, device, readout)
        self.direction, self.readout = direction, readout
        self.gating = Gating(gate, audit)
        self.value_range = None if value_range is None else _as_range(value_range)
        self._set_options(strength, slice_axis, axes, batched)

    @property
    def draws(self) -> bool:
        """A stylizer is deterministic."""
        return False

    def _default_strength(self) -> float:
        return self.handle.get().config.strength if self.strength is None else self.strength

    def _restyle(
        self,
        arrays: list[np.ndarray],
        strengths: list[float | None],
        seeds: Sequence[int] | None,
        names: Sequence[str],
        stored: Callable[[np.ndarray], np.ndarray],
    ) -> list[np.ndarray]:
        stylizer = self.handle.get()
        own = stylizer.config.strength
        amounts = [own if strength is None else strength for strength in strengths]
        try:
            natives = [self._to_native(array, stylizer.config.intensity) for array in arrays]
            changed = stylizer.stylize_arrays(natives, amounts, direction=self.direction)
        except UnitsError as error:
            raise self._where_to_scale(error) from error
        used = self.gating(stylizer, natives, changed, amounts, names, self._as_stored(stored, stylizer))
        return [
            array if result is native else self._from_native(result, stylizer.config.intensity)
            for array, native, result in zip(arrays, natives, used, strict=True)
        ]

    def _must_know_axes(self) -> bool:
        return self.handle.get().sees_axes(backwards=self.direction == DIRECTIONS[1])

    def check(self, img: NdarrayOrTensor) -> None:
        """Raise ``OsasisError`` for values that cannot be in the stylizer's units, or in ``value_range``."""
        array, backwards = self._as_numpy(img), self.direction == DIRECTIONS[1]
        intensity = self.handle.get().range_of(backwards=backwards)
        for sample in array if self.batched else [array]:
            if sample.size:
                try:
                    check_units(self._to_native(sample, intensity), intensity)
                except UnitsError as error:
                    raise self._where_to_scale(error) from error

    def _as_stored(
        self, stored: Callable[[np.ndarray], np.ndarray], stylizer: OSASISStylizer
    ) -> Callable[[np.ndarray], np.ndarray]:
        """Return what turns a result in native units into what is handed out of it, in native units."""
        if self.value_range is None:
            return stored
        intensity = stylizer.config.intensity
        return lambda image: self._to_native(stored(self._from_native(image, intensity)), intensity)

    def _to_native(self, array: np.ndarray, intensity: IntensityRange) -> np.ndarray:
        """Bring values from ``value_range`` to the units of ``intensity``; the array itself without one."""
        if self.value_range is None or array.size == 0 or intensity.kind != "fixed":
            return array
        return _rescaled(array, self.value_range, intensity)

    def _from_native(self, array: np.ndarray, intensity: IntensityRange) -> np.ndarray:
        if self.value_range is None or intensity.kind != "fixed":
            return array
        return _rescaled(array, intensity, self.value_range)

    def _where_to_scale(self, error: UnitsError) -> OsasisError:
        """Return the error with the remedies that a chain of transforms has."""
        if self.value_range is None:
            remedy = (
                "Put the transform before those that scale intensities (ScaleIntensityd, NormalizeIntensityd), or say "
                "value_range=(0, 1) after ScaleIntensityRanged(b_min=0, b_max=1)."
            )
            return OsasisError(error.rule, found=error.found, remedy=remedy)
        low, high = self.value_range.low, self.value_range.high
        return OsasisError(
            f"The image must be in value_range= (range {low:g} to {high:g})",
            found=f"{error.found} when brought to the stylizer's units",
            remedy="Give the range that the transforms before it make, or leave value_range out for native units.",
        )


def _as_range(value_range: Any) -> IntensityRange:
    if not isinstance(value_range, Sequence) or len(value_range) != 2:
        raise OsasisError("value_range is two numbers", found=f"{value_range!r:.60}", remedy="Such as (0, 1).")
    low, high = value_range
    return IntensityRange("fixed", low, high)


def _rescaled(array: np.ndarray, start: IntensityRange, end: IntensityRange) -> np.ndarray:
    share = (array.astype(np.float64) - start.low) / (start.high - start.low)
    return (share * (end.high - end.low) + end.low).astype(np.float32)


class RandOSASISStylize(RandStyle):
    """Restyle an image with probability ``prob``, at a random strength.

    Args:
        stylizer: as in :py:class:`OSASISStylize`, and so are the other arguments that are not listed here.
        prob: probability in [0, 1].
        strength: a number, or the interval to draw from uniformly.

    Raises:
        OsasisError: as :py:class:`OSASISStylize`; a probability outside [0, 1]; an interval that falls.
    """

    def __init__(
        self,
        stylizer: str | Path | OSASISStylizer,
        prob: float = 0.5,
        strength: float | tuple[float, float] = (0.5, 1.0),
        direction: str = "source_to_target",
        readout: str | None = None,
        slice_axis: int | str = "auto",
        axes: str = "auto",
        device: str | None = None,
        batched: bool = False,
        gate: bool | None = None,
        audit: str | Path | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        stylize = OSASISStylize(
            stylizer, None, direction, readout, slice_axis, axes, device, batched, gate, audit, value_range
        )
        super().__init__(stylize, prob, strength)
