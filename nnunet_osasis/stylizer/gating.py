"""The gate of a stylizer: its stored thresholds, or new ones where those do not fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from nnunet_osasis.diffusion.sampler import decode_images, encode_images
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.gate import Segmenter, StructureGate
from nnunet_osasis.gate.thresholds import GateThresholds
from nnunet_osasis.images.intensity import to_unit
from nnunet_osasis.maps.local_affine import carry_change
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import read_sealed_json, write_sealed_json
from nnunet_osasis.stylizer.readouts import READOUTS

if TYPE_CHECKING:
    from nnunet_osasis.gate.calibration import Restyle
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

logger = logging.getLogger(__name__)


def round_trip(stylizer: OSASISStylizer) -> Restyle:
    """A source image encoded and decoded by ``D_A`` itself, carried to its own grid as read-outs carry theirs."""

    @torch.inference_mode()
    def restyle(image: np.ndarray) -> np.ndarray:
        whole = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None].to(stylizer.device)
        side = int(stylizer.autoencoder.config.sample_size)
        small = resize(whole, (side, side)).clamp(-1, 1)
        code, unet = stylizer.autoencoder.semantic_encoder(small), stylizer.autoencoder.unet
        x_t = encode_images(unet, small, code, stylizer.config.sampler)
        back = decode_images(unet, x_t, code, stylizer.config.sampler).clamp(-1, 1)
        carried = back if small.shape == whole.shape else carry_change(small, back, whole)
        return carried.clamp(-1, 1)[0].cpu().numpy()

    return restyle


def calibrate_for(stylizer: OSASISStylizer, images: Sequence[np.ndarray], *, family: str, seed: int) -> GateThresholds:
    """Thresholds for the stylizer's read-out from source images ``(C, H, W)`` in [-1, 1] at their own size."""
    from nnunet_osasis.gate.calibration import calibrate_gate  # most stylizers bring their thresholds

    restyle = round_trip(stylizer) if READOUTS[stylizer.config.readout].needs_networks else None
    return calibrate_gate(images, family=family, seed=seed, restyle=restyle)


def own_gate(
    stylizer: OSASISStylizer, *, readout: str | None = None, segmenter: Segmenter | None = None
) -> StructureGate | None:
    """The gate with a stylizer's own thresholds; None when it has none for its read-out (or for ``readout``)."""
    kind = READOUTS[readout or stylizer.config.readout]
    if stylizer.gate is None or not stylizer.gate.serves(needs_round_trip=kind.needs_networks):
        return None
    return StructureGate(stylizer.gate, stylizer.config.intensity, segmenter, stylizer.config.strength)


def structure_gate(
    stylizer: OSASISStylizer,
    images: Callable[[], Sequence[np.ndarray]],
    *,
    segmenter: Segmenter | None = None,
) -> StructureGate:
    """The gate of a stylizer: its own, or one that is measured on ``images`` now, which is said.

    ``images`` gives what is going to be stylized, ``(C, H, W)`` in native units. It is called when the stylizer was
    made by an earlier version, or when its thresholds know no round trip of the networks and its read-out makes one.
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
    thresholds = calibrate_for(stylizer, units, family=family, seed=0)
    return StructureGate(thresholds, stylizer.config.intensity, segmenter, stylizer.config.strength)


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
    with output_lock(path.parent, "measuring a structure gate", wait=True):
        identity = {"readout": stylizer.config.readout, "stylizer": stylizer.fingerprint}
        if path.is_file():
            try:
                known = read_sealed_json(path, what="The gate's thresholds")
                if {name: known.get(name) for name in identity} == identity:
                    thresholds = GateThresholds(**known["thresholds"])
                    return StructureGate(thresholds, stylizer.config.intensity, segmenter, stylizer.config.strength)
            except (OsasisError, KeyError, TypeError) as error:
                logger.warning("%s is damaged (%s): the gate's thresholds are measured again.", path, error)
        gate = structure_gate(stylizer, images, segmenter=segmenter)
        write_sealed_json(path, identity | {"thresholds": gate.thresholds.to_json()})
        return gate
