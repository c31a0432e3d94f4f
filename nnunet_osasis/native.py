"""Stylization in an image's own units: intensity range, one batch where shapes allow, volumes as stacks of slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import check_array
from nnunet_osasis.images.intensity import from_unit, to_unit

if TYPE_CHECKING:
    from nnunet_osasis.stylizer import OSASISStylizer


def stylize_arrays(
    stylizer: OSASISStylizer,
    arrays: Sequence[np.ndarray],
    strengths: Sequence[float],
    *,
    direction: str = "source_to_target",
    readout: str | None = None,
) -> list[np.ndarray]:
    """Restyle images ``(C, H, W)`` of one shape together, or volumes ``(C, D, H, W)`` (slices along ``D``) in turn.

    Args:
        arrays: native units. strengths: one per array, in [0, 1]; 0 returns the same values as float32.
        direction, readout: as in ``OSASISStylizer.stylize``.

    Returns:
        float32 arrays, native units; what lay outside an image's intensity range keeps its excess.

    Raises ``OsasisError`` for wrong rank or channels, NaN, infinity, a constant image where ranges are per image, or
    another number of strengths than of arrays.
    """
    if len(strengths) != len(arrays):
        raise OsasisError(
            "Every image needs a strength",
            found=f"{len(strengths)} for {len(arrays)} images",
            remedy="Give one number, or one per image.",
        )
    for array in arrays:
        check_array(array, channels=stylizer.in_channels)
    wanted = [i for i, strength in enumerate(strengths) if strength != 0]
    bounds = {i: stylizer.config.intensity.bounds(arrays[i]) for i in wanted}

    def restyle(images: torch.Tensor, strength: float | list[float], *, joint: bool = False) -> torch.Tensor:
        there = images.to(stylizer.device)
        return stylizer.stylize(there, strength=strength, direction=direction, readout=readout, joint=joint).cpu()

    units = {i: torch.from_numpy(to_unit(arrays[i], bounds[i])) for i in wanted}
    if any(unit.ndim == 4 for unit in units.values()):
        done = [restyle(units[i].movedim(1, 0), strengths[i], joint=True).movedim(0, 1) for i in wanted]
    elif wanted:
        done = list(restyle(torch.stack(list(units.values())), [strengths[i] for i in wanted]))
    else:
        done = []
    changed = {
        i: from_unit(image.numpy(), bounds[i], original=arrays[i]) for i, image in zip(wanted, done, strict=True)
    }
    if not all(np.isfinite(image).all() for image in changed.values()):
        raise OsasisError(
            "A stylized image must be finite",
            found="values that no number of 32 bits can hold",
            remedy="Bring the image to smaller units, or make the stylizer anew.",
        )
    return [changed[i] if i in changed else array.astype(np.float32) for i, array in enumerate(arrays)]
