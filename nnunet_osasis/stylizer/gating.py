"""The structure gate of a stylizer: its stored thresholds, or new ones if it has none for its read-out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nnunet_osasis.diffusion.transfer import transfer_style
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.gate import Segmenter, StructureGate
from nnunet_osasis.gate.thresholds import GateThresholds
from nnunet_osasis.images.intensity import to_unit
from nnunet_osasis.runtime.compute import as_usual
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import read_sealed_json, write_sealed_json
from nnunet_osasis.stylizer.names import needs_networks
from nnunet_osasis.stylizer.readouts import DiffusionReadout

if TYPE_CHECKING:
    from nnunet_osasis.gate.calibration import Restyle
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

logger = logging.getLogger(__name__)


def round_trip(stylizer: OSASISStylizer) -> Restyle:
    """A source image encoded and decoded by ``D_A`` itself, carried to its own grid as read-outs carry theirs."""
    readout = stylizer.readout("raw")
    assert isinstance(readout, DiffusionReadout)  # noqa: S101 (for the type checker)
    encoder, unet = stylizer.autoencoder.semantic_encoder, stylizer.autoencoder.unet

    @as_usual()
    def restyle(image: np.ndarray) -> np.ndarray:
        whole = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None].to(stylizer.device)
        small = readout.at_network_size(whole)
        back = transfer_style(encoder, unet, unet, None, small, stylizer.config.sampler)
        return readout.carry(whole, small, back, joint=False).clamp(-1, 1)[0].cpu().numpy()

    return restyle


def calibrate_for(stylizer: OSASISStylizer, images: Sequence[np.ndarray], *, family: str, seed: int) -> GateThresholds:
    """Thresholds for the stylizer's read-out from source images ``(C, H, W)`` in [-1, 1] at their own size."""
    from nnunet_osasis.gate.calibration import calibrate_gate  # most stylizers bring their thresholds

    restyle = round_trip(stylizer) if needs_networks(stylizer.config.readout) else None
    return calibrate_gate(images, family=family, seed=seed, restyle=restyle, frame=stylizer.frame)


def own_gate(
    stylizer: OSASISStylizer, *, readout: str | None = None, segmenter: Segmenter | None = None
) -> StructureGate | None:
    """The gate with a stylizer's own thresholds; None when it has none for its read-out (or for ``readout``)."""
    needs_round_trip = needs_networks(readout or stylizer.config.readout)
    if stylizer.gate is None or not stylizer.gate.serves(needs_round_trip=needs_round_trip):
        return None
    return _gate(stylizer, stylizer.gate, segmenter)


def floor_gate(stylizer: OSASISStylizer) -> StructureGate:
    """The gate of the package's floors, for a stylizer without thresholds and no images at hand to measure them on."""
    return _gate(stylizer, GateThresholds({}), None)


def structure_gate(
    stylizer: OSASISStylizer, images: Callable[[], Sequence[np.ndarray]], *, segmenter: Segmenter | None = None
) -> StructureGate:
    """The gate of a stylizer: its own, or one that is measured on ``images`` now, with a warning.

    Args:
        stylizer: the stylizer.
        images: gives images that are going to be restyled, ``(C, H, W)`` in native units; called when the stylizer has
            no thresholds, or none that know the round trip of the networks that its read-out runs.
        segmenter: a frozen segmenter that the gate asks as well.
    """
    if (own := own_gate(stylizer, segmenter=segmenter)) is not None:
        return own
    logger.warning(
        "The structure gate's thresholds are measured on these images: the stylizer has none for the read-out %s.",
        stylizer.config.readout,
    )
    bounds = stylizer.config.intensity.bounds
    units = [to_unit(image, bounds(image)) for image in images()]
    family = "scanner" if stylizer.config.intensity.kind == "channel_percentile" else "auto"
    return _gate(stylizer, calibrate_for(stylizer, units, family=family, seed=0), segmenter)


def stored_gate(
    path: Path,
    stylizer: OSASISStylizer,
    images: Callable[[], Sequence[np.ndarray]],
    *,
    segmenter: Segmenter | None = None,
) -> StructureGate:
    """:func:`structure_gate`, whose thresholds are kept in ``path`` if they have to be measured.

    Later runs, other folds and the ranks of a DDP run then judge by the same ones: one process measures, the others
    wait. A damaged file is made anew.
    """
    if (own := own_gate(stylizer, segmenter=segmenter)) is not None:
        return own
    identity = {"readout": stylizer.config.readout, "stylizer": stylizer.fingerprint}
    with output_lock(path.parent, "measuring a structure gate", wait=True):
        if path.is_file():
            try:
                known = read_sealed_json(path, what="The gate's thresholds")
                if {name: known.get(name) for name in identity} == identity:
                    return _gate(stylizer, GateThresholds(**known["thresholds"]), segmenter)
            except (OsasisError, KeyError, TypeError, AttributeError) as error:
                logger.warning("%s is damaged (%s): the gate's thresholds are measured again.", path, error)
        gate = structure_gate(stylizer, images, segmenter=segmenter)
        write_sealed_json(path, identity | {"thresholds": gate.thresholds.to_json()})
        return gate


def _gate(stylizer: OSASISStylizer, thresholds: GateThresholds, segmenter: Segmenter | None) -> StructureGate:
    return StructureGate(thresholds, stylizer.config.intensity, segmenter, stylizer.config.strength, stylizer.frame)
