"""Stylization at the point of nnU-Net's preprocessing where an image is still in its own units."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import Decision, StructureGate
from nnunet_osasis.transfer import StyleTransfer

logger = logging.getLogger(__name__)

Restyle = Callable[[np.ndarray, np.ndarray, ConfigurationManager], np.ndarray]


def restyle_with(
    transfer: StyleTransfer,
    strength: float | None,
    *,
    gate: StructureGate | None = None,
    decided: Callable[[Decision], None] = lambda decision: None,
    ignored: int | None = None,
    case: str = "a case",
) -> Restyle:
    """A function of (data, seg, configuration) that stylizes ``data`` ``(C, Z, Y, X)``, native units, for nnU-Net.

    Two things are nnU-Net's business rather than the transfer's. If a channel is normalized inside a mask, the
    outside (``seg < 0``) is background that nnU-Net keeps at zero, so it keeps its value here. Channels declared as
    8-bit RGB are clipped to [0, 255], as a file would have done.

    Args:
        transfer: the stylizer, or any other style transfer.
        strength: in [0, 1]; None takes the transfer's own.
        gate: compares the result with its source; what fails is weakened and, failing again, left as it is.
        decided: called with every decision of the gate.
        ignored: nnU-Net's ignore label, which is no lesion; the gate takes all other labels of ``seg`` for lesions.
        case: name of the case, for messages.

    A constant image, or one with a constant channel that the transfer cannot take, stays as it is, with a warning: it
    has no style, and one black image must not end a training.
    """

    def restyle(data: np.ndarray, seg: np.ndarray, configuration: ConfigurationManager) -> np.ndarray:
        restyled = _restyled(transfer, data, strength, case)
        if restyled is None:
            if gate is not None:
                decided(Decision("original", 0.0, gate.default_strength if strength is None else strength, {}, {}))
            return data
        changed = np.array(restyled, dtype=np.float32)
        if changed.shape != data.shape or not np.isfinite(changed).all():
            raise OsasisError(
                f"A style transfer must return finite values of shape {data.shape}",
                found=f"shape {changed.shape}, {int((~np.isfinite(changed)).sum())} values not finite",
                remedy=f"This is a fault of {type(transfer).__name__}, please report it.",
            )
        outside = seg[0] < 0
        for channel, scheme in enumerate(configuration.normalization_schemes):
            if configuration.use_mask_for_norm[channel]:
                changed[channel][outside] = data[channel][outside]
            if scheme == "RGBTo01Normalization":
                np.clip(changed[channel], 0, 255, out=changed[channel])
        if gate is not None:
            lesions = seg[0] if ignored is None else np.where(seg[0] == ignored, 0, seg[0])
            result = gate(data, changed, gate.default_strength if strength is None else strength, lesions)
            decided(result.decision)
            changed = result.image
        # Into the array that nnU-Net made: sums over another memory layout would round differently.
        data[...] = changed
        return data

    return restyle


def _restyled(transfer: StyleTransfer, data: np.ndarray, strength: float | None, case: str) -> np.ndarray | None:
    """Return what the transfer makes of a case, None of a constant one. Raises ``OsasisError`` with the case's name."""
    flat = [bool((channel == channel.flat[0]).all()) for channel in data]
    if not all(flat):
        try:
            return transfer.stylize_array(data, strength=strength)
        except OsasisError as error:
            if not any(flat):
                raise OsasisError(
                    f"{case} cannot be stylized: {error.rule}", found=error.found, remedy=error.remedy
                ) from error
    which = "it is constant" if all(flat) else f"channel {flat.index(True)} is constant"
    logger.warning("%s is kept as it is: %s (%g everywhere)", case, which, data[flat.index(True)].flat[0])
    return None


def restyling_preprocessor(configuration: ConfigurationManager, restyle: Restyle | None) -> Any:
    """The configuration's own preprocessor, which stylizes transposed, cropped data just before normalizing them.

    Args:
        configuration: of nnU-Net's plans.
        restyle: from ``restyle_with``; None gives the ordinary preprocessor.
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
