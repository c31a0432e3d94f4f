"""The array transforms: ``OSASISStylize`` and ``RandOSASISStylize``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from monai_transforms.gating import Gating
from monai_transforms.loading import StylizerHandle
from monai_transforms.style import RandStyle, StyleTransform
from nnunet_osasis.errors import OsasisError
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
            ``(H, W[, D])``; ``auto``: the former for MetaTensors that name the file they were read from. Read-outs
            that run networks must see images the way up they were trained on; pixelwise ones do not care.
        device: for a stylizer folder, where it works (``cpu`` by default).
        batched: inputs have a batch axis first, ``(B, C, H, W[, D])``, as a DataLoader returns them.
        gate: compare every result with its image by the structure gate: what fails is weakened, and stays as it is
            when that fails too. None: by the package's least scores where the stylizer has no thresholds for its
            read-out; True refuses such a stylizer.
        audit: a file that gets a line of JSON for every decision (``osasis-info --audit`` reads it).

    Raises:
        OsasisError: no stylizer there, unknown options; on use: wrong channel count or rank, NaN, empty, boolean or
            constant images, a batch without ``batched``, CUDA in a forked worker.
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
    ) -> None:
        if direction not in DIRECTIONS:
            raise OsasisError("direction must be known", found=direction, remedy=f"Use one of {DIRECTIONS}.")
        if readout is not None and readout not in READOUTS:
            raise OsasisError("The read-out must be known", found=readout, remedy=f"Use one of {READOUTS}.")
        self.handle = StylizerHandle(stylizer, device, readout)
        self.direction, self.readout = direction, readout
        self.gating = Gating(gate, audit)
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
        amounts = [1.0 if strength is None else strength for strength in strengths]
        stylizer = self.handle.get()
        changed = stylizer.stylize_arrays(arrays, amounts, direction=self.direction)
        return self.gating(stylizer, arrays, changed, amounts, names, stored)


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
    ) -> None:
        stylize = OSASISStylize(stylizer, None, direction, readout, slice_axis, axes, device, batched, gate, audit)
        super().__init__(stylize, prob, strength)
