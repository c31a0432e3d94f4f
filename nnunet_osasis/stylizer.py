"""``OSASISStylizer``: the one door to stylization, for the command line, MONAI and nnU-Net alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from nnunet_osasis.adagn import ConditionalUNet
from nnunet_osasis.autoencoder import DiffusionAutoencoder
from nnunet_osasis.border import DARK, field_of_view
from nnunet_osasis.calibrator import Calibrator
from nnunet_osasis.decoded_readouts import apply_decoded, transfer
from nnunet_osasis.detail import DetailChange
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.estimates import PixelMap
from nnunet_osasis.gate.calibration import GateThresholds
from nnunet_osasis.intensity import to_unit
from nnunet_osasis.local_affine import resize
from nnunet_osasis.native import stylize_arrays
from nnunet_osasis.readout import ColorMap
from nnunet_osasis.readout_names import DECODED
from nnunet_osasis.spn import StructurePreservingNetwork
from nnunet_osasis.stylizer_config import DIRECTIONS, StylizerConfig, check_strength

__all__ = ["DIRECTIONS", "OSASISStylizer", "StylizerConfig", "check_strength"]

BATCH = 8
"""Images the networks see at once."""


class OSASISStylizer:
    """Restyles images to look like one reference image, their structure kept in place.

    Args:
        autoencoder: ``D_A``. decoder: ``D_B``'s UNet. spn: the structure-preserving network.
        reference: ``y``, native units, ``(C, H, W)``.
        maps: by the name of the parametric read-out and, for the way back, that name with ``_inverse``.
        card: what the folder's card says about its origin. findings: what was measured while it was made.
        calibrator: what made the maps of this reference, and can make those of another (``--from-stylizer``).
        detail: sharpness and noise, applied on top where ``config.detail`` says so (never on the way back).
        gate: thresholds of the structure gate, measured on the source images; ``stylize`` itself does not ask it.
    """

    def __init__(
        self,
        autoencoder: DiffusionAutoencoder,
        decoder: ConditionalUNet,
        spn: StructurePreservingNetwork,
        *,
        reference: np.ndarray,
        maps: dict[str, PixelMap],
        config: StylizerConfig,
        card: dict | None = None,
        findings: dict | None = None,
        calibrator: Calibrator | None = None,
        detail: DetailChange | None = None,
        gate: GateThresholds | None = None,
    ) -> None:
        self.autoencoder, self.decoder, self.spn = autoencoder.eval(), decoder.eval(), spn.eval()
        for module in (self.autoencoder, self.decoder, self.spn):
            module.requires_grad_(False)
        self.reference, self.maps, self.config, self.card = reference, maps, config, card or {}
        self.findings, self.calibrator, self.detail = findings or {}, calibrator, detail or DetailChange()
        self.gate = gate

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: str = "cpu") -> OSASISStylizer:
        """Load a stylizer folder; every file is checked against the folder's SHA-256 list first.

        Raises ``OsasisError`` for a missing, incomplete, damaged or foreign folder.
        """
        from nnunet_osasis.stylizer_folder import load_stylizer

        return load_stylizer(Path(folder), device)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the folder whole or not at all; an older stylizer there is replaced."""
        from nnunet_osasis.stylizer_folder import save_stylizer

        return save_stylizer(self, Path(folder))

    def __reduce__(self) -> tuple:
        """Pickled by content: equal stylizers give equal bytes."""
        from nnunet_osasis.stylizer_pickle import pack, unpack

        return unpack, pack(self)

    def to(self, device: str | torch.device) -> OSASISStylizer:
        """Move the networks to a device; returns self."""
        for module in (self.autoencoder, self.decoder, self.spn):
            module.to(device)
        return self

    def configured(self, **changes: object) -> OSASISStylizer:
        """The same weights under another configuration, for instance ``configured(readout="raw", strength=0.5)``."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.config = replace(self.config, **changes)  # type: ignore[arg-type]
        other.__dict__.pop("fingerprint", None)
        return other

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.autoencoder.device

    @property
    def in_channels(self) -> int:
        """Channels of the images it was made for."""
        return int(self.autoencoder.config.in_channels)

    @property
    def size(self) -> int:
        """Side in pixels the networks work at."""
        return int(self.autoencoder.config.sample_size)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of weights, reference and configuration: all that determines the output."""
        from nnunet_osasis.stylizer_folder import stylizer_fingerprint

        return stylizer_fingerprint(self)

    def __call__(self, images: torch.Tensor, **options: object) -> torch.Tensor:
        """``stylize``."""
        return self.stylize(images, **options)  # type: ignore[arg-type]

    @torch.inference_mode()
    def stylize(
        self,
        images: torch.Tensor,
        *,
        strength: float | Sequence[float] | None = None,
        direction: str = "source_to_target",
        readout: str | None = None,
        joint: bool = False,
    ) -> torch.Tensor:
        """Restyle a batch.

        Args:
            images: ``(B, C, H, W)`` in [-1, 1], any size; read-outs that run the networks see it at their own size.
            strength: 0 returns an equal copy, bit for bit; 1 is the full change; None the configured one. One number,
                or one per image.
            direction: ``target_to_source`` runs the other way: encode with ``D_B``, decode with ``D_A``.
            readout: overrides the configured one.
            joint: the batch is the slices of one volume, in order: they share one semantic code, one field of view
                and, in read-outs that fit local maps, windows that reach over neighbouring slices.

        Returns:
            ``(B, C, H, W)`` in [-1, 1] on the images' device. Frames around the field of view stay as they are.

        Raises:
            OsasisError: wrong rank or channels, values that are not finite, unknown option values.
        """
        given = self.config.strength if strength is None else strength
        config = self.config if readout is None else replace(self.config, readout=readout)
        if direction not in DIRECTIONS:
            raise OsasisError("direction must be known", found=direction, remedy=f"Use one of {DIRECTIONS}.")
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise OsasisError(
                f"This stylizer takes images (B, {self.in_channels}, H, W)",
                found=tuple(images.shape),
                remedy="Add the batch axis, convert the channels, or use a stylizer made for such images.",
            )
        if not torch.isfinite(images).all():
            raise OsasisError("Images must be finite", found="NaN or infinity", remedy="Repair or leave them out.")
        strengths = list(given) if isinstance(given, Sequence) else [given] * len(images)
        if len(strengths) != len(images):
            found = f"{len(strengths)} for {len(images)} images"
            raise OsasisError("Every image needs a strength", found=found, remedy="Give one number, or one per image.")
        weight = torch.tensor([check_strength(s) for s in strengths]).view(-1, 1, 1, 1)
        if not weight.any():
            return images.clone()
        images, weight = images.float(), weight.to(images.device, torch.float32)
        backwards = direction == "target_to_source"
        changed = self._apply(images, config.readout, backwards, joint)
        view = field_of_view(images, joint=joint)
        if config.detail and not backwards:
            changed = self.detail(changed.clamp(-1, 1), view=view, drawn_from=images)
        changed = torch.where(view, changed, images)
        return torch.where(weight == 0, images, (images + weight * (changed - images)).clamp(-1, 1))

    def _apply(self, images: torch.Tensor, readout: str, backwards: bool, joint: bool) -> torch.Tensor:
        if readout in DECODED:
            return apply_decoded(self, images, readout, backwards=backwards, joint=joint)
        return self.color_map(readout, backwards=backwards)(images)

    def color_map(self, readout: str, *, backwards: bool = False) -> PixelMap:
        """The map behind a parametric read-out.

        Raises ``OsasisError`` when this stylizer was made without it (by an older version, or without a calibrator).
        """
        ending = "_inverse" if backwards else ""
        if readout + ending in self.maps:
            return self.maps[readout + ending]
        if readout == "combined":  # of folders in the first format, where it was this mean
            return ColorMap.mean([self.maps["decoder" + ending], self.maps["pair" + ending]])  # type: ignore[list-item]
        raise OsasisError(
            "The stylizer must hold the read-out's map",
            found=f"no {readout}",
            remedy="Choose another read-out, or make the stylizer anew (with a calibrator).",
        )

    @torch.inference_mode()
    def decode_style(
        self, images: torch.Tensor, *, backwards: bool = False, joint: bool = False, relative: bool = False
    ) -> torch.Tensor:
        """The networks' own picture: ``(B, C, S, S)`` in [-1, 1] encoded by one decoder, decoded by the other.

        Forwards: ``D_A`` to ``D_B`` with the SPN (eqs. 5-9); backwards: ``D_B`` to ``D_A``. ``joint`` as in
        ``stylize``: the one code of a volume is the mean of its slices' codes. ``relative``: minus the encoding
        decoder's own round trip, in [-2, 2].
        """
        unit = images.to(self.device, torch.float32)
        codes = torch.cat([self.autoencoder.semantic_encoder(part) for part in unit.split(BATCH)])
        if joint:
            shown = (unit > DARK).flatten(1).any(dim=1)  # slices of nothing but air say nothing about the volume
            codes = codes[shown if shown.any() else slice(None)].mean(dim=0, keepdim=True).expand_as(codes)
        parts = zip(unit.split(BATCH), codes.split(BATCH), strict=True)
        return torch.cat([transfer(self, part, code, backwards, relative=relative) for part, code in parts])

    def reference_unit(self) -> torch.Tensor:
        """The reference at the networks' size: ``(1, C, S, S)`` in [-1, 1]."""
        bounds = self.config.intensity.bounds(self.reference, name="the reference")
        return resize(torch.from_numpy(to_unit(self.reference, bounds))[None], (self.size, self.size)).clamp(-1, 1)

    def stylize_array(
        self,
        array: np.ndarray,
        *,
        strength: float | None = None,
        direction: str = "source_to_target",
        readout: str | None = None,
    ) -> np.ndarray:
        """Restyle one image ``(C, H, W)`` or volume ``(C, D, H, W)`` (slices along ``D``) in native units.

        Returns float32 of the same shape, native units; what lay outside the intensity range keeps its excess.
        A volume's slices share one intensity range, one semantic code and one field of view, so that neighbouring
        slices agree. Raises ``OsasisError`` for wrong rank or channels, NaN, infinity, or a constant image.
        """
        strength = check_strength(self.config.strength if strength is None else strength)
        return stylize_arrays(self, [array], [strength], direction=direction, readout=readout)[0]
