"""``OSASISStylizer``: the one door to stylization, for the command line, MONAI and nnU-Net alike."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.thresholds import GateThresholds
from nnunet_osasis.images.bands import in_bands
from nnunet_osasis.images.image import check_array, to_dtype
from nnunet_osasis.images.intensity import IntensityRange, to_unit
from nnunet_osasis.images.units import check_units
from nnunet_osasis.maps.base import PixelMap, blend
from nnunet_osasis.maps.detail import DetailChange
from nnunet_osasis.maps.field_of_view import Frame, field_of_view, find_frame
from nnunet_osasis.maps.parametric import ParametricMap
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.runtime.compute import as_usual
from nnunet_osasis.stylizer.config import DIRECTIONS, StylizerConfig, check_call
from nnunet_osasis.stylizer.names import STUDENT, is_map
from nnunet_osasis.stylizer.native import in_type, map_array
from nnunet_osasis.stylizer.networks import DIFFUSION, Networks, networks_of
from nnunet_osasis.stylizer.one_pass import OnePass
from nnunet_osasis.stylizer.readouts import READOUTS, DiffusionReadout, MapReadout, Readout, StudentReadout
from nnunet_osasis.stylizer.serialization import StylizerState
from nnunet_osasis.transfer import check_strength

if TYPE_CHECKING:  # importing the networks imports diffusers, which a map does not need
    from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
    from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
    from nnunet_osasis.diffusion.unet import ConditionalUNet
    from nnunet_osasis.stylizer.calibrator import Calibrator
    from nnunet_osasis.stylizer.student import Student


logger = logging.getLogger(__name__)

AT_ONCE = 16
"""Number of images that ``stylize_arrays`` gives to the networks, and to their device, at once."""


def _network(name: str, doc: str, *, optional: bool = False) -> Any:
    """A property for one network; assigning to it leaves copies of the stylizer as they are."""

    def read(stylizer: OSASISStylizer) -> Any:
        return stylizer.networks.get(name) if optional else stylizer.networks[name]

    def assign(stylizer: OSASISStylizer, network: torch.nn.Module | None) -> None:
        stylizer.networks = stylizer.networks.changed(name, network)

    return property(read, assign, doc=doc)


class OSASISStylizer:
    """Restyles images to look like one reference image, their structure kept in place.

    ``from_pretrained`` reads a folder. Networks are needed by the read-outs that run them; without them, or before
    they are trained, the read-outs that are maps work.

    >>> from nnunet_osasis.maps.base import map_from_json
    >>> tone = map_from_json({"source_mean": [-20.0], "source_std": [20.0], "target_mean": [0.0], "target_std": [30.0]})
    >>> stylizer = OSASISStylizer(
    ...     reference=np.zeros((1, 8, 8)), maps={"moments": tone}, config=StylizerConfig(readout="moments")
    ... )
    >>> stylizer.stylize(torch.linspace(-1, 1, 64).view(1, 1, 8, 8)).shape
    torch.Size([1, 1, 8, 8])

    Args:
        autoencoder: ``Enc`` and ``D_A``.
        decoder: ``D_B``'s UNet.
        spn: the structure-preserving network.
        reference: ``y``, native units, ``(C, H, W)``.
        maps: maps by the name of their read-out and, for the way back, that name with ``_inverse``.
        config: how it is used.
        calibrator: what made the maps of this reference, and can make those of another (``--from-stylizer``).
        student: the small network behind the read-out ``student``.
        detail: sharpness and noise, applied on top if ``config.detail`` (never on the way back).
        gate: thresholds of the structure gate, measured on the source images; ``stylize`` itself does not ask it.
        frame: of the source images; it stays as it is, and what is little brighter changes little.
        card: what the folder's card says about its origin.
        diagnostics: what was measured while it was made.
        findings: former name of ``diagnostics``.
    """

    autoencoder: DiffusionAutoencoder = _network("autoencoder", "``Enc`` and ``D_A``; ``OsasisError`` without them.")
    decoder: ConditionalUNet = _network("decoder", "``D_B``'s UNet; ``OsasisError`` without it.")
    spn: StructurePreservingNetwork = _network("spn", "The structure-preserving network; ``OsasisError`` without it.")
    calibrator: Calibrator | None = _network("calibrator", "What makes the maps of a reference.", optional=True)
    student: Student | None = _network("student", "The network of the read-out ``student``.", optional=True)

    def __init__(
        self,
        autoencoder: DiffusionAutoencoder | None = None,
        decoder: ConditionalUNet | None = None,
        spn: StructurePreservingNetwork | None = None,
        *,
        reference: np.ndarray,
        maps: dict[str, PixelMap],
        config: StylizerConfig,
        calibrator: Calibrator | None = None,
        student: Student | None = None,
        detail: DetailChange | None = None,
        gate: GateThresholds | None = None,
        frame: Frame | None = None,
        card: dict | None = None,
        diagnostics: dict | None = None,
        findings: dict | None = None,
    ) -> None:
        self.networks = Networks(
            {"autoencoder": autoencoder, "decoder": decoder, "spn": spn, "calibrator": calibrator, "student": student}
        )
        self.reference, self.maps, self.config = reference, maps, config
        self.detail, self.gate, self.frame = detail or DetailChange(), gate, frame
        self.card, self.diagnostics = card or {}, diagnostics or findings or {}

    @classmethod
    def from_state(cls, state: StylizerState) -> Self:
        """A stylizer of a state, which it shares."""
        stylizer = cls(
            reference=state.reference, maps=state.maps, config=state.config, detail=state.detail, gate=state.gate,
            frame=state.frame, card=state.card, diagnostics=state.diagnostics,
        )  # fmt: skip
        stylizer.networks = state.networks
        return stylizer

    @property
    def state(self) -> StylizerState:
        """What it is made of."""
        return StylizerState(
            self.config,
            self.reference,
            self.maps,
            self.networks,
            self.card,
            self.diagnostics,
            self.detail,
            self.gate,
            self.frame,
        )

    @classmethod
    @as_usual()
    def from_pretrained(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Load a stylizer folder. Networks are read, and checked against their SHA-256, at first use.

        Raises ``OsasisError`` for a missing, incomplete, damaged or foreign folder.
        """
        stylizer = cls.from_state(StylizerState.read(folder)).to(device)
        ordered = stylizer.card.get("readout", stylizer.config.readout)
        if ordered != stylizer.config.readout and not stylizer.has_networks:
            logger.warning(
                "%s was ordered with the read-out %s, whose networks are not trained yet: it restyles with %s. The "
                "command that made it goes on to them with --resume.", folder, ordered, stylizer.config.readout,
            )  # fmt: skip
        return stylizer

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the folder whole or not at all; an older stylizer there is replaced."""
        return self.state.write(Path(folder))

    def __reduce__(self) -> tuple:
        """Pickled by content, as far as the configured read-out needs it: equal stylizers give equal bytes."""
        return _from_bytes, (self.state.to_bytes(),)

    def __copy__(self) -> Self:
        return type(self).from_state(self.state)

    def __deepcopy__(self, memo: dict) -> Self:
        return type(self).from_state(copy.deepcopy(self.state, memo))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that determines the output of the configured read-out."""
        return self.state.fingerprint()

    @property
    def findings(self) -> dict:
        """Former name of ``diagnostics``."""
        return self.diagnostics

    @findings.setter
    def findings(self, diagnostics: dict) -> None:
        self.diagnostics = diagnostics

    def to(self, device: str | torch.device) -> Self:
        """Move networks and maps to a device; returns self."""
        self.networks.to(device)
        for change in self.maps.values():
            change.to(device)
        return self

    def load_networks(self) -> Self:
        """Read all networks now, each checked against its SHA-256; returns self."""
        for name in self.networks:
            self.networks[name]
        return self

    def compile(self, **options: Any) -> Self:
        """``torch.compile`` the networks that the configured read-out runs, in place; returns self. For large archives.

        The first image of every batch size waits for the compiler, a minute or more; last bits may differ afterwards.
        """
        for name in networks_of(self.config.readout):
            network = self.networks[name]
            parts = (network.semantic_encoder, network.unet) if name == "autoencoder" else (network,)
            for part in parts:
                part.compile(dynamic=False, **options)  # type: ignore[union-attr]
        return self

    def configured(self, **changes: object) -> Self:
        """The same parts under another configuration, for instance ``configured(readout="raw", strength=0.5)``."""
        return type(self).from_state(replace(self.state, config=replace(self.config, **changes)))  # type: ignore[arg-type]

    @property
    def has_networks(self) -> bool:
        """Whether it has the networks that read-outs with ``needs_networks`` run."""
        return all(name in self.networks for name in DIFFUSION)

    @property
    def device(self) -> torch.device:
        """Where the networks are, or where they are going to be."""
        return self.networks.device

    @property
    def in_channels(self) -> int:
        """Channels of the images it was made for."""
        return self.state.in_channels

    @property
    def size(self) -> int | None:
        """Side in pixels that the networks work at, or else the calibrator; None when there is neither."""
        return self.state.size

    def readout(self, name: str | None = None) -> Readout:
        """A read-out as a module: the configured one, or another by name.

        Raises ``OsasisError`` for an unknown name, or when the stylizer lacks the map, the student or the networks.
        """
        name = self.config.readout if name is None else replace(self.config, readout=name).readout
        kind = READOUTS[name]
        if issubclass(kind, DiffusionReadout):
            sampler = self.config.sampler
            style = self.reference_unit() if sampler.mix == "style" else None
            frames = [self.frame_of(backwards=backwards) for backwards in (False, True)]
            return kind(self.autoencoder, self.decoder, self.spn, sampler, style, frames)
        if issubclass(kind, StudentReadout):
            return kind(self.student_of(STUDENT))
        return MapReadout(self.color_map(name), self.maps.get(f"{name}_inverse"))

    def frame_of(self, *, backwards: bool = False) -> Frame | None:
        """The frame of the images of a direction: the source's, or the one that the reference shows."""
        if not backwards:
            return self.frame
        return find_frame([to_unit(self.reference, self.config.intensity.bounds(self.reference, name="the reference"))])

    def range_of(self, *, backwards: bool = False) -> IntensityRange:
        """The range for images of a direction: with the values seen at the source, or without on the way back."""
        return replace(self.config.intensity, seen=None) if backwards else self.config.intensity

    def color_map(self, readout: str, *, backwards: bool = False) -> PixelMap:
        """The map behind a read-out. Raises ``OsasisError`` when this stylizer was made without it."""
        change = self.maps.get(f"{readout}_inverse" if backwards else readout)
        if change is None:
            raise OsasisError(
                "The stylizer must hold the read-out's map",
                found=f"no {readout}",
                remedy="Choose another read-out, or make the stylizer anew (with a calibrator).",
            )
        return change

    def sees_axes(self, *, backwards: bool = False) -> bool:
        """Whether the configured read-out's result depends on which way round an image is held."""
        name = self.config.readout
        if not is_map(name) or (self.config.detail and not backwards):
            return True
        change = self.maps.get(f"{name}_inverse" if backwards else name)
        parts = [] if change is None else [part for part in change.modules() if isinstance(part, ParametricMap)]
        return any("field" in part.terms for part in parts)

    @as_usual()
    def as_module(self, direction: str = DIRECTIONS[0], readout: str | None = None) -> OnePass:
        """A read-out as a module ``(images (B, C, H, W), strength (B,))`` in pure torch, without waits for the device.

        A map is that map; a read-out that runs the diffusion networks is replaced by the student that imitates it.
        Raises ``OsasisError`` for a missing student, for detail, and for unknown directions.
        """
        readout = self.config.readout if readout is None else readout
        if direction not in DIRECTIONS:
            raise OsasisError("direction must be known", found=direction, remedy=f"Use one of {DIRECTIONS}.")
        backwards = direction == DIRECTIONS[1]
        if self.config.detail and not backwards and (self.detail.sharpness or self.detail.noise):
            raise OsasisError(
                "One pass carries no sharpness and no noise over",
                found="a stylizer with detail",
                remedy="Use stylizer.configured(detail=False).as_module().",
            )
        change: torch.nn.Module
        if is_map(readout):
            change = self.color_map(readout, backwards=backwards)
        else:
            change = self.student_of(readout).direction(backwards=backwards)
        # a copy, which may be moved and cast without the stylizer's own
        return OnePass(copy.deepcopy(change), self.in_channels, self.frame_of(backwards=backwards)).to(self.device)

    one_pass = as_module  # its name before

    def student_of(self, readout: str = STUDENT) -> Student:
        """The student, if it imitates this read-out. Raises ``OsasisError`` otherwise."""
        student = self.student
        if student is not None and readout in (STUDENT, student.config.teacher):
            return student
        remedy = f"--distil {'local_affine' if readout == STUDENT else readout}"
        if is_map(self.config.readout):
            own = self.config.readout
            remedy += f", or use the read-out {own}: it needs no student, it is one pass by itself"
        raise OsasisError(
            "The read-out student needs a student"
            if readout == STUDENT
            else "One pass needs a student of this read-out",
            found="none" if student is None else f"a student of {student.config.teacher}, not of {readout}",
            remedy=f"Make the stylizer with osasis-pretrain-stylizer {remedy}.",
        )

    def __call__(self, images: torch.Tensor, **options: Any) -> torch.Tensor:
        """``stylize``."""
        return self.stylize(images, **options)

    @as_usual()
    def stylize(
        self,
        images: torch.Tensor,
        *,
        strength: float | Sequence[float] | None = None,
        direction: str = DIRECTIONS[0],
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
            joint: the batch is the slices of one volume, in order: they share one semantic code and, in read-outs
                that fit local maps, windows that reach over neighboring slices.

        Returns:
            ``(B, C, H, W)`` in [-1, 1] on the images' device. A frame that the source images have stays as it is.

        Raises:
            OsasisError: wrong rank or channels, values that are not finite, unknown option values, a read-out whose
                map or networks the stylizer lacks.
        """
        chosen = self.config.strength if strength is None else strength
        strengths = check_call(images, self.in_channels, chosen, direction)
        if not strengths.any():
            return images.clone()
        images = images.float()
        backwards = direction == DIRECTIONS[1]
        changed = self.readout(readout)(images, backwards=backwards, joint=joint)
        frame = self.frame_of(backwards=backwards)
        if self.config.detail and not backwards:
            view = field_of_view(images, frame, joint=joint)
            changed = self.detail(changed.clamp(-1, 1), view=view, drawn_from=images)
        amounts = strengths.to(images.device, torch.float32)
        return in_bands(images, lambda part, band: blend(part, band.of(changed), amounts[band.slices], frame))

    @as_usual()
    def decode_style(
        self, images: torch.Tensor, *, backwards: bool = False, joint: bool = False, relative: bool = False
    ) -> torch.Tensor:
        """The networks' own picture of ``(B, C, S, S)`` in [-1, 1]: encoded by one decoder, decoded by the other.

        Forwards ``D_A`` to ``D_B`` with the SPN (eqs. 5-9), backwards ``D_B`` to ``D_A``; ``joint`` as in ``stylize``;
        ``relative`` as in ``transfer_style``. Raises ``OsasisError`` when the stylizer has no networks.
        """
        readout = self.readout("raw")
        assert isinstance(readout, DiffusionReadout)  # noqa: S101 (for the type checker)
        return readout.picture(images, backwards=backwards, joint=joint, relative=relative)

    @as_usual()
    def reference_unit(self) -> torch.Tensor:
        """The reference at the networks' size: ``(1, C, S, S)`` in [-1, 1]; at its own size without networks."""
        bounds = self.config.intensity.bounds(self.reference, name="the reference")
        side = self.size
        size = self.reference.shape[1:] if side is None else (side, side)
        return resize(torch.from_numpy(to_unit(self.reference, bounds))[None], size).clamp(-1, 1)

    def stylize_array(
        self,
        array: np.ndarray,
        *,
        strength: float | None = None,
        direction: str = DIRECTIONS[0],
        readout: str | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> np.ndarray:
        """Restyle one image ``(C, H, W)`` or volume ``(C, D, H, W)`` (slices along ``D``) in native units.

        Returns ``dtype`` of the same shape, native units (integers rounded and clipped); what lay outside the
        intensity range keeps its excess. Read-outs that are maps take some 200 MB beside the image and the result,
        however large they are; those that run networks hold image and result in float32 as well.
        A volume's slices share one intensity range and one semantic code, so that neighboring slices agree.
        Raises ``OsasisError`` for wrong rank or channels, NaN, infinity, a constant image, or values that cannot be in
        the stylizer's units.
        """
        strength = check_strength(self.config.strength if strength is None else strength)
        return self.stylize_arrays([array], [strength], direction=direction, readout=readout, dtype=dtype)[0]

    @as_usual()
    def stylize_arrays(
        self,
        arrays: Sequence[np.ndarray],
        strengths: Sequence[float],
        *,
        direction: str = DIRECTIONS[0],
        readout: str | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> list[np.ndarray]:
        """Restyle images ``(C, H, W)`` of one shape together, or volumes ``(C, D, H, W)`` (slices along ``D``) in turn.

        Args:
            arrays: native units.
            strengths: one per array, in [0, 1]; 0 returns the same values in ``dtype``.
            direction: as in ``stylize``.
            readout: as in ``stylize``.
            dtype: of the results.

        Returns:
            arrays of ``dtype``, native units; what lay outside an image's intensity range keeps its excess.

        Raises:
            OsasisError: wrong rank or channels, NaN, infinity, a constant image where ranges are per image, values that
                cannot be in the stylizer's units, or another number of strengths than of arrays.
        """
        if len(strengths) != len(arrays):
            raise OsasisError(
                "Every image needs a strength",
                found=f"{len(strengths)} for {len(arrays)} images",
                remedy="Give one number, or one per image.",
            )
        for array in arrays:
            check_array(array, channels=self.in_channels)
        chosen = [i for i, strength in enumerate(strengths) if strength != 0]
        name = self.config.readout if readout is None else replace(self.config, readout=readout).readout
        if direction not in DIRECTIONS:
            raise OsasisError("direction must be known", found=direction, remedy=f"Use one of {DIRECTIONS}.")
        backwards = direction == DIRECTIONS[1]
        for i in chosen:
            check_units(arrays[i], self.range_of(backwards=backwards))
        if is_map(name) and (backwards or not self.config.detail):
            change = self.color_map(name, backwards=backwards) if chosen else None
            frame = self.frame_of(backwards=backwards)
            intensity, kind = self.config.intensity, np.dtype(dtype)
            return [
                to_dtype(array, kind)
                if change is None or strength == 0
                else map_array(array, change, intensity, check_strength(strength), frame, kind, self.device)
                for array, strength in zip(arrays, strengths, strict=True)
            ]
        bounds = {i: self.config.intensity.bounds(arrays[i]) for i in chosen}
        results = [to_dtype(array, np.dtype(dtype)) for array in arrays]
        joint = any(arrays[i].ndim == 4 for i in chosen)  # one volume is as much as the device is given at once
        count = 1 if joint else AT_ONCE
        for part in (chosen[i : i + count] for i in range(0, len(chosen), count)):
            units = torch.from_numpy(np.stack([to_unit(arrays[i], bounds[i]) for i in part])).to(self.device)
            images = units[0].movedim(1, 0) if joint else units
            amounts: Any = strengths[part[0]] if joint else [strengths[i] for i in part]
            changed = self.stylize(images, strength=amounts, direction=direction, readout=readout, joint=joint)
            for i, unit in zip(part, changed.movedim(0, 1)[None] if joint else changed, strict=True):
                results[i] = in_type(unit.cpu().numpy(), bounds[i], arrays[i], np.dtype(dtype))
        return results


@as_usual()
def _from_bytes(data: bytes) -> OSASISStylizer:
    state = StylizerState.from_bytes(data)
    return OSASISStylizer.from_state(state).to(state.networks.device)
