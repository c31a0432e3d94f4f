"""Stylization at the one point of nnU-Net's preprocessing where an image is still in its own units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import Decision, StructureGate
from nnunet_osasis.transfer import StyleTransfer

Restyle = Callable[[np.ndarray, np.ndarray, ConfigurationManager], np.ndarray]


def restyle_with(
    transfer: StyleTransfer,
    strength: float | None,
    *,
    gate: StructureGate | None = None,
    decided: Callable[[Decision], None] = lambda decision: None,
    ignored: int | None = None,
) -> Restyle:
    """A function of (data, seg, configuration) that stylizes ``data`` ``(C, Z, Y, X)``, native units, for nnU-Net.

    Two things are nnU-Net's business rather than the transfer's. Where a channel is normalized inside a mask, the
    outside (``seg < 0``) is background that nnU-Net keeps at zero, so it keeps its value here. Channels declared as
    8-bit RGB are clipped to [0, 255], as a file would have done.

    With a ``gate``, what fails it is tried weaker and, failing again, left as it is; ``seg`` says where lesions are,
    and ``decided`` is told what was decided. ``ignored`` is nnU-Net's ignore label, which is no lesion.
    """

    def finished(data: np.ndarray, seg: np.ndarray, config: ConfigurationManager, amount: float | None) -> np.ndarray:
        stylized = np.array(transfer.stylize_array(data, strength=amount), dtype=np.float32)
        if stylized.shape != data.shape or not np.isfinite(stylized).all():
            raise OsasisError(
                f"A style transfer must return finite values of shape {data.shape}",
                found=f"shape {stylized.shape}, {int((~np.isfinite(stylized)).sum())} values not finite",
                remedy=f"This is a fault of {type(transfer).__name__}, please report it.",
            )
        outside = seg[0] < 0
        for channel, scheme in enumerate(config.normalization_schemes):
            if config.use_mask_for_norm[channel]:
                stylized[channel][outside] = data[channel][outside]
            if scheme == "RGBTo01Normalization":
                np.clip(stylized[channel], 0, 255, out=stylized[channel])
        return stylized

    def restyle(data: np.ndarray, seg: np.ndarray, configuration: ConfigurationManager) -> np.ndarray:
        if gate is None:
            stylized = finished(data, seg, configuration, strength)
        else:
            lesions = seg[0] if ignored is None else np.where(seg[0] == ignored, 0, seg[0])
            wanted = gate.default_strength if strength is None else strength
            result = gate(data, lambda amount: finished(data, seg, configuration, amount), wanted, lesions)
            decided(result.decision)
            stylized = result.image
        # Into the array that nnU-Net made: sums over another memory layout would round differently.
        data[...] = stylized
        return data

    return restyle


def restyling_preprocessor(configuration: ConfigurationManager, restyle: Restyle | None) -> Any:
    """The configuration's own preprocessor, which stylizes transposed, cropped data just before normalizing them.

    With ``restyle=None`` it is the ordinary preprocessor.
    """
    base: Any = configuration.preprocessor_class
    if restyle is None:
        return base(verbose=False)
    change = restyle

    class RestylingPreprocessor(base):
        def _normalize(self, data: Any, seg: Any, configuration_manager: Any, intensities: Any) -> Any:
            data = change(data, seg, configuration_manager)
            return super()._normalize(data, seg, configuration_manager, intensities)

    return RestylingPreprocessor(verbose=False)
