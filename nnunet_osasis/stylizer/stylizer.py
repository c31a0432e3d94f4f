"""What a stylizer is made of: networks, maps, reference, configuration; and where they are.

``OSASISStylizer``: the one door to stylization, for the command line, MONAI and nnU-Net alike.

Stylization in an image's own units: intensity range, one batch where shapes allow, volumes as stacks of slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.diffusion.transfer import Inversion, decode_style, inversion_identity, invert, weights_digest
from nnunet_osasis.diffusion.unet import ConditionalUNet
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.calibration import GateThresholds
from nnunet_osasis.images.image import check_array
from nnunet_osasis.images.intensity import from_unit, to_unit
from nnunet_osasis.maps.base import PixelMap
from nnunet_osasis.maps.detail import DetailChange
from nnunet_osasis.maps.field_of_view import field_of_view
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.stylizer.calibrator import Calibrator
from nnunet_osasis.stylizer.config import DIRECTIONS, StylizerConfig, check_call
from nnunet_osasis.stylizer.one_pass import OnePass, make_one_pass, student_of
from nnunet_osasis.stylizer.readouts import DECODED, STUDENT, LastResult, at_network_size
from nnunet_osasis.stylizer.student import Student
from nnunet_osasis.transfer import check_strength


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
        for module in filter(None, (self.autoencoder, self.decoder, self.spn, self.student, *self.maps.values())):
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


class OSASISStylizer(StylizerParts):
    """Restyles images to look like one reference image, their structure kept in place.

    Arguments as of ``StylizerParts``; ``from_pretrained`` reads them from a folder.
    """

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: str = "cpu") -> OSASISStylizer:
        """Load a stylizer folder; every file is checked against the folder's SHA-256 list first.

        Raises ``OsasisError`` for a missing, incomplete, damaged or foreign folder.
        """
        from nnunet_osasis.stylizer.serialization import load_stylizer

        return load_stylizer(Path(folder), device)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the folder whole or not at all; an older stylizer there is replaced."""
        from nnunet_osasis.stylizer.serialization import save_stylizer

        return save_stylizer(self, Path(folder))

    def __reduce__(self) -> tuple:
        """Pickled by content: equal stylizers give equal bytes."""
        from nnunet_osasis.stylizer.serialization import pack, unpack

        return unpack, pack(self)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of weights, reference and configuration: all that determines the output."""
        from nnunet_osasis.stylizer.serialization import stylizer_fingerprint

        return stylizer_fingerprint(self)

    @cached_property
    def digests(self) -> tuple[str, str]:
        """SHA-256 (hex) of the weights of ``D_A`` with its encoder, and of ``D_B``."""
        return weights_digest(self.autoencoder), weights_digest(self.decoder)

    @cached_property
    def _last(self) -> LastResult:
        return LastResult(self)

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
        inversion: Inversion | None = None,
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
            inversion: from ``invert`` of these images, for read-outs that run the networks; others need none.

        Returns:
            ``(B, C, H, W)`` in [-1, 1] on the images' device. Frames around the field of view stay as they are.

        Raises:
            OsasisError: wrong rank or channels, values that are not finite, unknown option values, an inversion of
                something else.
        """
        given = self.config.strength if strength is None else strength
        config = self.config if readout is None else replace(self.config, readout=readout)
        weight = check_call(images, self.in_channels, given, direction).view(-1, 1, 1, 1)
        if not weight.any():
            return images.clone()
        images, weight = images.float(), weight.to(images.device, torch.float32)
        backwards = direction == "target_to_source"
        changed = self._apply(images, config.readout, backwards, joint, inversion)
        view = field_of_view(images, joint=joint)
        if config.detail and not backwards:
            changed = self.detail(changed.clamp(-1, 1), view=view, drawn_from=images)
        changed = torch.where(view, changed, images)
        return torch.where(weight == 0, images, (images + weight * (changed - images)).clamp(-1, 1))

    def _apply(
        self, images: torch.Tensor, readout: str, backwards: bool, joint: bool, inversion: Inversion | None
    ) -> torch.Tensor:
        if readout in DECODED:
            return self._last(images, readout, backwards=backwards, joint=joint, inversion=inversion)
        if readout == STUDENT:
            return student_of(self).restyle(images, backwards=backwards, joint=joint)
        return self.color_map(readout, backwards=backwards)(images)

    def one_pass(self, direction: str = "source_to_target", readout: str | None = None) -> OnePass:
        """A read-out as a module ``(images (B, C, H, W), strength (B,))`` in pure torch, without waits for the device.

        A map is that map; of a read-out that runs the diffusion networks it is the student that imitates it. Raises
        ``OsasisError`` where there is no such student, for detail, and for unknown directions.
        """
        return make_one_pass(self, direction, readout)

    def color_map(self, readout: str, *, backwards: bool = False) -> PixelMap:
        """The map behind a parametric read-out.

        Raises ``OsasisError`` when this stylizer was made without it (by an older version, or without a calibrator).
        """
        ending = "_inverse" if backwards else ""
        if readout + ending in self.maps:
            return self.maps[readout + ending]
        raise OsasisError(
            "The stylizer must hold the read-out's map",
            found=f"no {readout}",
            remedy="Choose another read-out, or make the stylizer anew (with a calibrator).",
        )

    @torch.inference_mode()
    def decode_style(
        self,
        images: torch.Tensor,
        *,
        backwards: bool = False,
        joint: bool = False,
        relative: bool = False,
        inversion: Inversion | None = None,
    ) -> torch.Tensor:
        """The networks' own picture: ``(B, C, S, S)`` in [-1, 1] encoded by one decoder, decoded by the other.

        Forwards: ``D_A`` to ``D_B`` with the SPN (eqs. 5-9); backwards: ``D_B`` to ``D_A``. ``joint`` as in
        ``stylize``: the one code of a volume is the mean of its slices' codes. ``relative``: minus the encoding
        decoder's own round trip, in [-2, 2]. ``inversion``: of these very images, if there is one.
        """
        return decode_style(self, images, backwards=backwards, joint=joint, relative=relative, inversion=inversion)

    def invert(self, images: torch.Tensor, *, backwards: bool = False, joint: bool = False) -> Inversion:
        """Half of the networks' work on images ``(B, C, H, W)`` in [-1, 1], for ``stylize(..., inversion=...)``.

        It serves every read-out and strength, and all stylizers that share the autoencoder (``--from-stylizer``).
        Raises ``OsasisError`` for images that ``stylize`` refuses.
        """
        check_call(images, self.in_channels, 1.0, DIRECTIONS[int(backwards)])
        small = at_network_size(self, images.float())
        code, noise = invert(self, small, backwards=backwards, joint=joint)
        return Inversion(small, code, noise, inversion_identity(self, backwards=backwards, joint=joint))

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
