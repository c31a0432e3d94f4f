"""The two stages of a build, each of which ends with a stylizer that can be used.

``maps`` needs no diffusion network: calibrator, moments, ``combined``, detail, structure gate, suitability of the
references. ``networks`` pretrains, makes the style pair, adapts, and adds the read-outs that need the networks; it
leaves the maps of the first stage as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.diffusion.unet import ConditionalUNet
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.calibration import GateThresholds
from nnunet_osasis.images.grids import save_grid
from nnunet_osasis.images.intensity import IntensityRange, to_unit
from nnunet_osasis.images.slices import evenly_spaced
from nnunet_osasis.maps.detail import DetailChange, DetailStatistics
from nnunet_osasis.maps.field_of_view import find_frame, own_view
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.runtime import distributed as processes
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import atomic_write_json, read_json
from nnunet_osasis.runtime.storage import remove_stale_temporaries, sha256_of_array
from nnunet_osasis.stylizer.calibrator import Calibrator
from nnunet_osasis.stylizer.config import StylizerConfig
from nnunet_osasis.stylizer.gating import calibrate_for
from nnunet_osasis.stylizer.names import needs_networks
from nnunet_osasis.stylizer.serialization import is_stylizer_folder, read_index
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.training.adaptation.adapt import adapt
from nnunet_osasis.training.adaptation.embedders import make_embedder
from nnunet_osasis.training.build.diagnostics import EXAMPLES, pair_qualities, show_stylized, suitability
from nnunet_osasis.training.build.settings import (
    FALLBACK,
    MAPS,
    NETWORKS,
    SECOND_STAGE,
    VERSIONS,
    BuildConfig,
    build_card,
    check_possible,
    differences,
    flat,
)
from nnunet_osasis.training.calibrate import train_calibrator
from nnunet_osasis.training.distil import distil
from nnunet_osasis.training.pretrain import pretrain
from nnunet_osasis.training.read_out import decoder_maps, estimate_maps, pair_maps
from nnunet_osasis.training.sources import detail_of
from nnunet_osasis.training.style_pair import StylePair, make_style_pair

WORK = "training"
"""Subfolder of the output for logs, grids and, until the end, checkpoints."""


SETTINGS = "settings.json"
"""File in the work folder with the card of the run whose checkpoints lie beside it."""

DATA = ("sources_sha256", "reference_sha256", "more_references_sha256", "style_source_sha256")

CHECKPOINTED = {
    "calibrator.safetensors": (*DATA, "calibrator"),
    "pretrain.safetensors": (*DATA, "preset", "pretraining"),
    "adapt.safetensors": (*DATA, "preset", "pretraining", "adaptation", "style_embedder"),
    "student.safetensors": (*DATA, "preset", "pretraining", "adaptation", "style_embedder", "student"),
}
"""Entries of the card that decide what a checkpoint holds."""


class StylizerBuild:
    """One build in one output folder; ``run`` does what is not done yet.

    Args:
        config: settings.
        sources: source images ``(N, C, S, S)`` in [-1, 1].
        reference: the target domain's image ``(C, H, W)`` in native units.
        intensity: how native units map onto [-1, 1].
        output: the stylizer's folder.
        more_references: further images of the target domain, for the maps.
        details: sharpness and noise of the source images at their own size.
        gate_images: source images at their own size that the structure gate is calibrated on.
        frame_images: source images that the frame is looked for in, their pixels not averaged; none takes ``sources``.
        autoencoder: a pretrained ``D_A``; None pretrains one.
        calibrator: a trained calibrator; None trains one.
        counterpart: the reference as the source shows it ``(1, C, S, S)``, for the pair maker ``file``.
        tensorboard: folder of TensorBoard events; None writes none.

    Raises:
        OsasisError: settings that cannot be met.
    """

    def __init__(
        self,
        config: BuildConfig,
        sources: torch.Tensor,
        reference: np.ndarray,
        intensity: IntensityRange,
        output: Path,
        *,
        more_references: Sequence[np.ndarray] = (),
        details: Sequence[DetailStatistics] = (),
        gate_images: Sequence[np.ndarray] = (),
        frame_images: Sequence[np.ndarray] = (),
        autoencoder: DiffusionAutoencoder | None = None,
        calibrator: Calibrator | None = None,
        counterpart: torch.Tensor | None = None,
        tensorboard: Path | None = None,
    ) -> None:
        if config.calibrator.family == "auto" and intensity.kind == "channel_percentile":
            # channels with units of their own are no colors, be they three
            config = replace(config, calibrator=replace(config.calibrator, family="scanner"))
        self.config, self.sources, self.intensity, self.output = config, sources, intensity, output
        self.native_references = [reference, *more_references]
        check_possible(config, references=len(self.native_references))
        self.lent_autoencoder, self.counterpart, self.tensorboard = autoencoder, counterpart, tensorboard
        self.lent_calibrator = calibrator if config.calibrator.iterations else None
        self.details, self.gate_images = details, gate_images or list(sources.numpy())
        self.frame_images = frame_images or list(sources.numpy())
        self.references = [self._unit(image) for image in self.native_references]
        self.work = output / WORK

    def _unit(self, image: np.ndarray) -> torch.Tensor:
        """A reference at the networks' size: ``(1, C, S, S)`` in [-1, 1]."""
        size = self.config.preset.model["sample_size"]
        unit = torch.from_numpy(to_unit(image, self.intensity.bounds(image, name="the reference")))
        return resize(unit[None], (size, size)).clamp(-1, 1)

    def card(self) -> dict:
        """Return the stylizer's card: data hashes, settings and versions; no times, no paths."""
        lent = {"pretraining": self.lent_autoencoder, "calibrator": self.lent_calibrator}
        return build_card(
            self.config, self.sources, self.native_references, counterpart=self.counterpart,
            lent=[name for name, part in lent.items() if part is not None],
        )  # fmt: skip

    def run(
        self,
        *,
        resume: bool = False,
        stop_after: str = NETWORKS,
        on_maps: Callable[[OSASISStylizer], None] | None = None,
    ) -> OSASISStylizer:
        """Build, save, and return the stylizer.

        Args:
            resume: continue with what the output folder already holds.
            stop_after: last stage to run, ``maps`` or ``networks``.
            on_maps: called in the main process once the stylizer can be used, unless it is already finished.

        Raises:
            OsasisError: the output holds another stylizer, or ``resume`` is missing to continue one; another process
                works in it.
            KeyboardInterrupt: after the state has been saved.
        """
        group = processes.current()
        with group.on_main(lambda: output_lock(self.output, "osasis-pretrain-stylizer")):
            saved = group.from_main(lambda: self._begin(resume))
            if saved is None:
                group.from_main(lambda: self._make_maps(resume))
            if saved != NETWORKS:
                if on_maps is not None and group.is_main:
                    on_maps(OSASISStylizer.from_pretrained(self.output))
                if stop_after != MAPS:
                    self._add_networks(resume)
            return OSASISStylizer.from_pretrained(self.output, device=self.config.device)

    def check_output(self, *, resume: bool = False) -> str | None:
        """Return the last stage that the output holds; nothing is computed.

        Raises:
            OsasisError: the output holds another stylizer, or unfinished work under other images or settings, which the
                message names; or ``resume`` is missing to continue one.
        """
        stage, own = saved_stage(self.output, resume=resume), flat(self.card())
        if stage is not None:
            known = flat(read_index(self.output)["card"])
            ignored = VERSIONS if stage == NETWORKS else (*VERSIONS, *SECOND_STAGE)
            if differing := differences(known, own, lambda entry: entry not in ignored):
                raise OsasisError(
                    "The output folder must not hold another stylizer",
                    found=f"one of other images or settings ({differing}) in {self.output}",
                    remedy="Choose another --output, or add --overwrite to replace it.",
                )
        record = self.work / SETTINGS
        if stage != NETWORKS and record.is_file():
            trained = {"student.safetensors": self.config.distil.teacher(self.config.readout) is not None}
            begun = {
                entry
                for name, entries in CHECKPOINTED.items()
                if trained.get(name, True) and (self.work / name).is_file()
                for entry in entries
            }
            known = flat(read_json(record, what="The record of the settings"))
            if differing := differences(known, own, lambda entry: entry in begun):
                raise OsasisError(
                    "A run can only be resumed with the same images and settings",
                    found=f"{differing} in {self.output}",
                    remedy="Repeat the original command with --resume, or start again with --overwrite.",
                )
        return stage

    def _begin(self, resume: bool) -> str | None:
        """Return the last stage that is saved, and keep on record what this run goes on with."""
        stage = self.check_output(resume=resume)
        if stage == NETWORKS:
            self._drop_checkpoints()  # of a run that was killed after its stylizer was whole
        else:
            atomic_write_json(self.work / SETTINGS, self.card())
        return stage

    def _drop_checkpoints(self) -> None:
        remove_stale_temporaries(self.work)
        for checkpoint in [*self.work.glob("*.safetensors"), self.work / SETTINGS]:
            checkpoint.unlink(missing_ok=True)

    # --- stage 1: maps ---

    def _make_maps(self, resume: bool) -> None:
        """Save a stylizer with everything that needs no diffusion network; the main process alone works on it."""
        config, sources = self.config, self.sources
        calibrator = self._calibrator(resume)
        given = [StylePair.from_file(self.references[0], self.counterpart)] if config.adapt.pair.maker == "file" else []
        maps, agreement = estimate_maps(
            self.references, sources, calibrator, given=given, hold_back=config.hold_back
        )
        readout = config.readout if config.readout in maps else FALLBACK
        stylizer = OSASISStylizer(
            reference=self.native_references[0], maps=maps, config=self._stylizer_config(readout),
            calibrator=calibrator, detail=self._detail(), frame=find_frame(self.frame_images), card=self.card(),
            diagnostics=suitability(agreement, calibrator, sources, config.calibrator, count=len(self.references)),
        )  # fmt: skip
        stylizer.gate = self._gate(stylizer)
        show_stylized(self.work / "grid_stylized.png", stylizer, sources, self.references[0])
        stylizer.save_pretrained(self.output)

    def _calibrator(self, resume: bool) -> Calibrator | None:
        if self.lent_calibrator is not None or self.config.calibrator.iterations == 0:
            return self.lent_calibrator
        return train_calibrator(
            self.sources, self.config.calibrator, work=self.work, device=self.config.device, resume=resume
        )

    def _stylizer_config(self, readout: str) -> StylizerConfig:
        training = self.config.adapt.sampler
        return StylizerConfig(
            readout=readout,
            detail=self.config.detail,
            sampler=replace(training, decode_steps=max(training.decode_steps, training.encode_steps)),
            intensity=self.intensity,
        )

    def _detail(self) -> DetailChange:
        """The change from the sources' sharpness and noise to the references', at their own sizes."""
        statistics: list[DetailStatistics] = []
        for image in self.native_references:
            statistics += detail_of(image, self.intensity.bounds(image))
        return DetailChange.between(self.details, statistics)

    def _gate(self, stylizer: OSASISStylizer) -> GateThresholds:
        return calibrate_for(
            stylizer, self.gate_images, family=self.config.calibrator.family, seed=self.config.adapt.seed
        )

    # --- stage 2: networks ---

    def _add_networks(self, resume: bool) -> None:
        """Train the networks and save them with the read-outs they make possible.

        All processes pretrain and adapt together; what lies between and after, the main one does alone.
        """
        group, device, config = processes.current(), self.config.device, self.config.adapt
        model = self._autoencoder(resume)
        pairs: list[StylePair] = []

        def make_pairs() -> torch.Tensor:
            calibrator = OSASISStylizer.from_pretrained(self.output).calibrator
            pairs.extend(self._pair(model, reference, calibrator) for reference in self.references)
            return self._style_a(pairs[0]).cpu()

        style_a = group.from_main(make_pairs).to(device)
        torch.manual_seed(config.seed)
        spn = StructurePreservingNetwork(
            in_channels=self.sources.shape[1], time=config.spn_time, zero_init=config.spn_zero_init,
            **self.config.preset.spn,
        ).to(device)  # fmt: skip
        embed = make_embedder(self.config.clip, model.semantic_encoder, self.sources[:64].to(device))
        decoder, spn = adapt(
            model, spn, embed, self.sources, style_a, self.references[0].to(device), config,
            work=self.work, resume=resume, tensorboard=self.tensorboard,
        )  # fmt: skip
        group.from_main(lambda: self._save_networks(model, decoder, spn, pairs, style_a, resume))

    def _save_networks(
        self,
        model: DiffusionAutoencoder,
        decoder: ConditionalUNet,
        spn: StructurePreservingNetwork,
        pairs: Sequence[StylePair],
        style_a: torch.Tensor,
        resume: bool,
    ) -> None:
        """Add networks, their read-outs and the student to the stylizer of the first stage, and save it."""
        sources, readout = self.sources, self.config.readout
        stylizer = OSASISStylizer.from_pretrained(self.output).configured(readout=readout)
        stylizer.autoencoder, stylizer.decoder, stylizer.spn = model, decoder, spn
        stylizer.maps = (
            decoder_maps(stylizer, sources, self.config.calibrator.family) | pair_maps(pairs) | stylizer.maps
        )
        stylizer.student = distil(stylizer, sources, self.config.distil, work=self.work, resume=resume)
        if needs_networks(readout):
            stylizer.gate = self._gate(stylizer)  # it has to allow for the networks' round trip
        stylizer.diagnostics |= {"pair_quality": pair_qualities(model, pairs, sources)}
        show_stylized(self.work / "grid_stylized.png", stylizer, sources, self.references[0], style_a)
        stylizer.card = self.card()
        stylizer.save_pretrained(self.output)
        self._drop_checkpoints()

    def _autoencoder(self, resume: bool) -> DiffusionAutoencoder:
        if self.lent_autoencoder is not None:
            return self.lent_autoencoder.to(self.config.device)
        return pretrain(
            self.sources,
            self.config.preset,
            work=self.work,
            device=self.config.device,
            resume=resume,
            tensorboard=self.tensorboard,
            on_grid=self._show_pretraining,
        )

    def _pair(self, model: DiffusionAutoencoder, reference: torch.Tensor, calibrator: Calibrator | None) -> StylePair:
        device, config = self.config.device, self.config.adapt
        return make_style_pair(
            model, reference.to(device), self.sources.to(device), config.pair, seed=config.seed,
            counterpart=self.counterpart, calibrator=calibrator,
        )  # fmt: skip

    def _style_a(self, pair: StylePair) -> torch.Tensor:
        """The one ``y_A`` that adaptation sees: the sample nearest to ``y``, or ``y`` itself recolored."""
        y = pair.reference
        if self.config.adapt.align_pair:
            recolored = pair.maps()[1](y).clamp(-1, 1)
            return torch.where(own_view(y), recolored, y)
        distance = (pair.counterparts - y).abs().mean(dim=(1, 2, 3))
        return pair.counterparts[distance.argmin()][None]

    def _show_pretraining(self, iteration: int, model: DiffusionAutoencoder) -> None:
        """Save what the half-trained model makes of the pair: source, recolored source, reference, ``y_A``."""
        calibrator = None
        if self.config.adapt.pair.maker == "calibrator":
            calibrator = OSASISStylizer.from_pretrained(self.output).calibrator
        pair = self._pair(model, self.references[0], calibrator)
        examples = self.sources[evenly_spaced(len(self.sources), EXAMPLES)]
        columns: Sequence = [
            ("source", examples),
            ("stylized (pair)", pair.maps()[0](examples)),
            ("reference", pair.reference),
            ("reference as source", pair.counterparts[:5]),
        ]
        path = self.work / f"grid_pretrain_{iteration:07d}.png"
        save_grid(path, columns, title=f"pretraining, iteration {iteration}")


def lent_calibrator(given: OSASISStylizer | None, sources: torch.Tensor) -> Calibrator | None:
    """Return another stylizer's calibrator if it was trained on these very images: it knows only their scenes."""
    if given is None or given.calibrator is None:
        return None
    if given.card.get("sources_sha256") == sha256_of_array(sources.numpy()):
        return given.calibrator
    logging.getLogger(__name__).info("--from-stylizer was made on other images: the calibrator is trained anew.")
    return None


def saved_stage(output: Path, *, resume: bool) -> str | None:
    """Return the last stage that is saved in a folder: ``maps``, ``networks``, or None before the first.

    Raises ``OsasisError`` for a stylizer or an unfinished run when ``resume`` is false.
    """
    if not is_stylizer_folder(output):
        if not resume and any((output / WORK).glob("*.safetensors")):
            raise OsasisError(
                "The output must not hold an unfinished run",
                found=f"checkpoints in {output / WORK}",
                remedy="Add --resume to go on with it, or --overwrite to start again.",
            )
        return None
    finished = any(name.startswith("autoencoder/") for name in read_index(output)["sha256"])
    if not resume:
        raise OsasisError(
            "The output folder must not hold another stylizer",
            found=f"a {'finished stylizer' if finished else 'stylizer without networks'} in {output}",
            remedy=f"{'' if finished else 'Add --resume to go on to its networks. '}Choose another --output, or add "
            "--overwrite to replace it.",
        )
    return NETWORKS if finished else MAPS
