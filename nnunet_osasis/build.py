"""From source images and one reference to a stylizer folder: pretrain, pair, adapt, read out, save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from nnunet_osasis.adapt import adapt
from nnunet_osasis.build_config import BuildConfig, build_card, check_possible
from nnunet_osasis.calibrate import train_calibrator
from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.diffusion.unet import ConditionalUNet
from nnunet_osasis.distil import distil
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.findings import EXAMPLES, measure, show_stylized
from nnunet_osasis.fitted_maps import StylePair, decoder_maps, estimate_maps
from nnunet_osasis.images.grids import save_grid
from nnunet_osasis.images.intensity import IntensityRange, to_unit
from nnunet_osasis.images.slices import evenly_spaced
from nnunet_osasis.maps.detail import DetailChange, DetailStatistics
from nnunet_osasis.maps.field_of_view import field_of_view
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.pretrain import pretrain
from nnunet_osasis.runtime import distributed as processes
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.storage import clear_leftovers
from nnunet_osasis.sources import detail_of
from nnunet_osasis.style.embedders import make_embedder
from nnunet_osasis.style_pair import make_style_pair
from nnunet_osasis.stylizer.calibrator import Calibrator
from nnunet_osasis.stylizer.config import StylizerConfig
from nnunet_osasis.stylizer.gating import calibrate_for
from nnunet_osasis.stylizer.serialization import is_stylizer_folder, read_index
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

WORK = "training"
"""Subfolder of the output for logs, grids and, until the end, checkpoints."""


class StylizerBuild:
    """One build in one output folder; ``run`` does what is not done yet."""

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
        autoencoder: DiffusionAutoencoder | None = None,
        calibrator: Calibrator | None = None,
        counterpart: torch.Tensor | None = None,
        tensorboard: Path | None = None,
    ) -> None:
        self.config, self.sources, self.intensity, self.output = config, sources, intensity, output
        if config.calibrator.family == "auto" and intensity.kind == "channel_percentile":
            # channels with units of their own are no colours, be they three
            self.config = replace(config, calibrator=replace(config.calibrator, family="scanner"))
        self.reference, self.given, self.counterpart = reference, autoencoder, counterpart
        self.more_references = list(more_references)
        self.given_calibrator = calibrator if config.calibrator.iterations else None
        check_possible(config, references=1 + len(self.more_references))
        self.tensorboard, self.details, self.gate_images = tensorboard, details, gate_images
        size = config.preset.model["sample_size"]
        self.references = [
            resize(
                torch.from_numpy(to_unit(one, intensity.bounds(one, name="the reference")))[None], (size, size)
            ).clamp(-1, 1)
            for one in (reference, *self.more_references)
        ]
        self.y = self.references[0]
        self.work = output / WORK
        self.calibrator: Calibrator | None = None

    def card(self) -> dict:
        """What the stylizer's card records: data hashes, settings and versions; no times, no paths."""
        lent = {"pretraining": self.given, "calibrator": self.given_calibrator}
        return build_card(
            self.config, self.sources, [self.reference, *self.more_references],
            lent=[name for name, part in lent.items() if part is not None],
        )  # fmt: skip

    def run(self, *, resume: bool = False) -> OSASISStylizer:
        """Build, save, and return the stylizer.

        Raises ``OsasisError`` when the output already holds another stylizer or an unfinished run and ``resume`` is
        not asked for, or when another process is at work in it; ``KeyboardInterrupt`` after saving the state.
        """
        with processes.current().on_main(lambda: output_lock(self.output, "osasis-pretrain-stylizer")):
            return self._run(resume)

    def _run(self, resume: bool) -> OSASISStylizer:
        """All processes pretrain and adapt together; what lies between and after, the main one does alone."""
        group = processes.current()
        if group.from_main(lambda: is_stylizer_folder(self.output)):
            group.from_main(lambda: self._require_mine(resume))
            return OSASISStylizer.from_pretrained(self.output, device=self.config.device)
        group.from_main(lambda: self._refuse_unfinished(resume))
        model = self._autoencoder(resume)
        device, config, sources = self.config.device, self.config.adapt, self.sources
        pairs: list[StylePair] = []

        def prepare() -> torch.Tensor:
            self.calibrator = self._calibrator(resume)
            pairs.extend(self._pair(model, one, self.calibrator) for one in self.references)
            return self._style_a(pairs[0]).cpu()

        style_a = group.from_main(prepare).to(device)
        torch.manual_seed(config.seed)
        spn = StructurePreservingNetwork(
            in_channels=sources.shape[1], time=config.spn_time, zero_init=config.spn_zero_init, **self.config.preset.spn
        ).to(device)
        embed = make_embedder(self.config.clip, model.semantic_encoder, sources[:64].to(device))
        decoder, spn = adapt(
            model, spn, embed, sources, style_a, self.y.to(device), config,
            work=self.work, resume=resume, tensorboard=self.tensorboard,
        )  # fmt: skip
        stylizer = self._assemble(model, decoder, spn)
        group.from_main(lambda: self._complete(stylizer, pairs, style_a, resume))
        if group.is_main:
            return stylizer
        return OSASISStylizer.from_pretrained(self.output, device=device)

    def _complete(self, stylizer: OSASISStylizer, pairs: list[StylePair], style_a: torch.Tensor, resume: bool) -> None:
        """Read-outs, student, gate and findings; then the folder."""
        sources, calibrator, family = self.sources, self.calibrator, self.config.calibrator.family
        maps, agreed = estimate_maps(pairs, sources, calibrator, hold_back=self.config.hold_back)
        stylizer.maps = decoder_maps(stylizer, sources, family) | maps
        stylizer.calibrator = calibrator
        stylizer.detail = self._detail()
        stylizer.student = distil(stylizer, sources, self.config.distil, work=self.work, resume=resume)
        shown = self.gate_images or list(sources.numpy())
        stylizer.gate = calibrate_for(stylizer, shown, family=family, seed=self.config.adapt.seed)
        stylizer.findings |= measure(stylizer.autoencoder, pairs, agreed, calibrator, sources, self.config.calibrator)
        show_stylized(self.work / "grid_stylized.png", stylizer, sources, self.y, style_a)
        stylizer.save_pretrained(self.output)
        self._drop_checkpoints()

    def _refuse_unfinished(self, resume: bool) -> None:
        if not resume and any(self.work.glob("*.safetensors")):
            raise OsasisError(
                "The output must not hold an unfinished run",
                found=f"checkpoints in {self.work}",
                remedy="Add --resume to go on with it, or --overwrite to start again.",
            )

    def _drop_checkpoints(self) -> None:
        clear_leftovers(self.work)
        for checkpoint in self.work.glob("*.safetensors"):
            checkpoint.unlink()

    def _require_mine(self, resume: bool) -> None:
        if not resume or read_index(self.output).get("card") != self.card():
            raise OsasisError(
                "The output folder must not hold another stylizer",
                found=f"a finished stylizer in {self.output}",
                remedy="Choose another --output, or add --overwrite to replace it.",
            )
        self._drop_checkpoints()  # of a run that was killed after its stylizer was whole

    def _autoencoder(self, resume: bool) -> DiffusionAutoencoder:
        if self.given is not None:
            return self.given.to(self.config.device)
        return pretrain(
            self.sources,
            self.config.preset,
            work=self.work,
            device=self.config.device,
            resume=resume,
            tensorboard=self.tensorboard,
            on_grid=self._show_pretraining,
        )

    def _detail(self) -> DetailChange:
        """From the sources' sharpness and noise to the references', at their own sizes."""
        seen = [detail_of(one, self.intensity.bounds(one)) for one in (self.reference, *self.more_references)]
        return DetailChange.between(self.details, [one for found in seen for one in found])

    def _calibrator(self, resume: bool) -> Calibrator | None:
        if self.given_calibrator is not None:
            return self.given_calibrator.to(self.config.device)
        if self.config.calibrator.iterations == 0:
            return None
        return train_calibrator(
            self.sources, self.config.calibrator, work=self.work, device=self.config.device, resume=resume
        )

    def _pair(self, model: DiffusionAutoencoder, reference: torch.Tensor, calibrator: Calibrator | None) -> StylePair:
        device, config = self.config.device, self.config.adapt
        counterparts = make_style_pair(
            model, reference.to(device), self.sources.to(device), config.pair,
            seed=config.seed, counterpart=self.counterpart, calibrator=calibrator,
        )  # fmt: skip
        return StylePair(
            reference, counterparts, aligned=config.pair.maker != "nearest", given=config.pair.maker == "file"
        )

    def _style_a(self, pair: StylePair) -> torch.Tensor:
        """The one ``y_A`` that adaptation sees: the sample nearest to ``y``, or ``y`` itself recoloured."""
        y = pair.reference.to(pair.counterparts)
        if self.config.adapt.align_pair:
            recoloured = pair.maps()[1](y).clamp(-1, 1)
            return torch.where(field_of_view(y), recoloured, y)
        distance = (pair.counterparts - y).abs().mean(dim=(1, 2, 3))
        return pair.counterparts[distance.argmin()][None]

    def _assemble(
        self, model: DiffusionAutoencoder, decoder: ConditionalUNet, spn: StructurePreservingNetwork
    ) -> OSASISStylizer:
        training = self.config.adapt.sampler
        config = StylizerConfig(
            readout=self.config.readout,
            detail=self.config.detail,
            sampler=replace(training, decode_steps=max(training.decode_steps, training.encode_steps)),
            intensity=self.intensity,
        )
        return OSASISStylizer(model, decoder, spn, reference=self.reference, maps={}, config=config, card=self.card())

    def _show_pretraining(self, iteration: int, model: DiffusionAutoencoder) -> None:
        """What the half-trained model already makes of the pair: source, recoloured source, reference, ``y_A``."""
        device = self.config.device
        config = self.config.adapt.pair
        if config.maker == "calibrator":  # there is none yet
            config = replace(config, maker="prealigned_sdedit")
        pair = make_style_pair(
            model, self.y.to(device), self.sources.to(device), config, seed=self.config.adapt.seed,
            counterpart=self.counterpart,
        )  # fmt: skip
        examples = evenly_spaced(self.sources, EXAMPLES)
        stylized = StylePair(self.y, pair, aligned=config.maker != "nearest").maps()[0](examples)
        shown = (("source", examples), ("stylized (pair)", stylized), ("reference", self.y))
        columns: Sequence = [*shown, ("reference as source", pair[:5])]
        save_grid(
            self.work / f"grid_pretrain_{iteration:07d}.png", columns, title=f"pretraining, iteration {iteration}"
        )
