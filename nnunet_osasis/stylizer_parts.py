"""What a stylizer is made of: networks, maps, reference, configuration; and where they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch

from nnunet_osasis.calibrator import Calibrator
from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.diffusion.unet import ConditionalUNet
from nnunet_osasis.gate.calibration import GateThresholds
from nnunet_osasis.maps.base import PixelMap
from nnunet_osasis.maps.detail import DetailChange
from nnunet_osasis.student import Student
from nnunet_osasis.stylizer_config import StylizerConfig


class StylizerParts:
    """The parts of an ``OSASISStylizer``, which adds what it does with them.

    Args:
        autoencoder: ``D_A``. decoder: ``D_B``'s UNet. spn: the structure-preserving network.
        reference: ``y``, native units, ``(C, H, W)``.
        maps: by the name of the parametric read-out and, for the way back, that name with ``_inverse``.
        card: what the folder's card says about its origin. findings: what was measured while it was made.
        calibrator: what made the maps of this reference, and can make those of another (``--from-stylizer``).
        detail: sharpness and noise, applied on top where ``config.detail`` says so (never on the way back).
        gate: thresholds of the structure gate, measured on the source images; ``stylize`` itself does not ask it.
        student: the small network behind the read-out ``student``, if one was trained.
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
        student: Student | None = None,
    ) -> None:
        self.autoencoder, self.decoder, self.spn = autoencoder.eval(), decoder.eval(), spn.eval()
        for module in (self.autoencoder, self.decoder, self.spn):
            module.requires_grad_(False)
        self.reference, self.maps, self.config, self.card = reference, maps, config, card or {}
        self.findings, self.calibrator, self.detail = findings or {}, calibrator, detail or DetailChange()
        self.gate, self.student = gate, None if student is None else student.eval().requires_grad_(False)

    def to(self, device: str | torch.device) -> Self:
        """Move the networks to a device; returns self."""
        for module in filter(None, (self.autoencoder, self.decoder, self.spn, self.student)):
            module.to(device)
        return self

    def compile(self, **options: Any) -> Self:
        """``torch.compile`` the networks in place; returns self. For large archives and read-outs that run them.

        The first image of every batch size waits for the compiler, a minute or more; last bits may differ afterwards.
        """
        for module in (self.autoencoder.semantic_encoder, self.autoencoder.unet, self.decoder, self.spn):
            module.compile(dynamic=False, **options)
        return self

    def configured(self, **changes: object) -> Self:
        """The same weights under another configuration, for instance ``configured(readout="raw", strength=0.5)``."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.config = replace(self.config, **changes)  # type: ignore[arg-type]
        for remembered in ("fingerprint", "_last"):
            other.__dict__.pop(remembered, None)
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
