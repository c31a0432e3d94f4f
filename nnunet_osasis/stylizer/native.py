"""Images in native units through a map: band by band, so that memory does not grow with them."""

from __future__ import annotations

import numpy as np
import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.bands import bands
from nnunet_osasis.images.image import to_dtype
from nnunet_osasis.images.intensity import Bounds, IntensityRange, from_unit, to_unit
from nnunet_osasis.maps.base import PixelMap, blend
from nnunet_osasis.maps.field_of_view import Frame


def map_array(
    array: np.ndarray,
    change: PixelMap,
    intensity: IntensityRange,
    strength: float,
    frame: Frame | None,
    dtype: np.dtype,
    device: torch.device,
) -> np.ndarray:
    """Restyle one image or volume by a map.

    Args:
        array: ``(C, H, W)`` or ``(C, D, H, W)`` in native units.
        change: the map.
        intensity: the range that [-1, 1] stands for.
        strength: in (0, 1].
        frame: of the images, which stays as it is.
        dtype: of the result; integers are rounded and clipped.
        device: where the map is computed.

    Returns:
        The restyled image, of the same shape. Beside it and the image some 200 MB are needed, whatever their size.

    Raises:
        OsasisError: a constant image where the range is per image, or a result that float32 cannot hold.
    """
    bounds, result = intensity.bounds(array), np.empty(array.shape, dtype)
    channels, *sides = array.shape if array.ndim == 4 else (len(array), 1, *array.shape[1:])
    for band in bands(sides[0], channels, *sides[1:]):
        unit = np.moveaxis(to_unit(band.of_array(array), bounds), 1, 0)
        images = torch.from_numpy(np.ascontiguousarray(unit)).to(device)
        amounts = torch.full((len(images),), strength, device=device)
        mixed = np.moveaxis(blend(images, change(images, band), amounts, frame).cpu().numpy(), 0, 1)
        band.of_array(result)[...] = in_type(mixed, bounds, band.of_array(array), dtype)
    return result


def in_type(unit: np.ndarray, bounds: Bounds, original: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Bring a result in [-1, 1] to the native units of its original, in ``dtype``.

    Raises ``OsasisError`` when float32 cannot hold it.
    """
    native = from_unit(unit, bounds, original=original)
    if not np.isfinite(native).all():
        raise OsasisError(
            "A stylized image must be finite",
            found="values that no number of 32 bits can hold",
            remedy="Bring the image to smaller units, or make the stylizer anew.",
        )
    return to_dtype(native, dtype)
