"""From source images and one reference to a stylizer folder: pretrain, pair, adapt, read out, save.

The settings of one stylizer, whether they can be met, and what its card says of them.

What is measured and shown while a stylizer is made.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.diffusion.unet import ConditionalUNet
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.grids import save_grid
from nnunet_osasis.images.intensity import IntensityRange, to_unit
from nnunet_osasis.images.slices import evenly_spaced
from nnunet_osasis.maps.agreement import Agreement
from nnunet_osasis.maps.detail import DetailChange, DetailStatistics
from nnunet_osasis.maps.field_of_view import field_of_view
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.runtime import distributed as processes
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import as_json
from nnunet_osasis.runtime.storage import clear_leftovers, sha256_of_array
from nnunet_osasis.stylizer.calibrator import Calibrator, CalibratorConfig
from nnunet_osasis.stylizer.config import StylizerConfig
from nnunet_osasis.stylizer.gating import calibrate_for
from nnunet_osasis.stylizer.names import NETWORK_READOUTS, STUDENT
from nnunet_osasis.stylizer.serialization import is_stylizer_folder, read_index
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.training.adaptation.adapt import adapt
from nnunet_osasis.training.adaptation.embedders import make_embedder
from nnunet_osasis.training.calibrate import train_calibrator, try_calibrator, warn_if_outlying
from nnunet_osasis.training.distil import DistilConfig, distil
from nnunet_osasis.training.presets import HOW, AdaptConfig, Preset
from nnunet_osasis.training.pretrain import pretrain
from nnunet_osasis.training.read_out import decoder_maps, estimate_maps
from nnunet_osasis.training.sources import detail_of
from nnunet_osasis.training.style_pair import StylePair, make_style_pair, pair_quality

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


@dataclass(frozen=True)
class BuildConfig:
    """All settings of one build; equal settings, images and seed give equal bytes on a CPU."""

    preset_name: str
    preset: Preset
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    calibrator: CalibratorConfig = field(default_factory=CalibratorConfig)
    readout: str = "combined"
    hold_back: bool = False
    detail: bool = False
    clip: str | None = None
    distil: DistilConfig = field(default_factory=DistilConfig)
    device: str = "cpu"


def check_possible(config: BuildConfig, *, references: int) -> None:
    """Raise ``OsasisError`` for settings that would fail after hours: before anything is trained."""
    wants = "calibrator" in (config.adapt.pair.maker, config.readout)
    if wants and config.calibrator.iterations == 0:
        raise OsasisError(
            "The pair maker and the read-out calibrator need a calibrator",
            found="--calibrator-iterations 0",
            remedy="Leave it above 0, or choose another --pair or --readout.",
        )
    if config.readout == STUDENT and config.distil.teacher(config.readout) is None:
        raise OsasisError(
            "The read-out student needs a read-out to be distilled",
            found="none",
            remedy="Add --distil local_affine, and leave out --no-distil.",
        )
    if config.adapt.pair.maker == "file" and references > 1:
        raise OsasisError("--pair file takes one reference", found=f"{references} with --style")


def build_card(
    config: BuildConfig, sources: torch.Tensor, references: Sequence[np.ndarray], *, lent: Sequence[str]
) -> dict:
    """What a stylizer's card records: data hashes, settings and versions; no times, no paths.

    ``lent`` names the parts (``pretraining``, ``calibrator``) that were taken from another stylizer.
    """
    from nnunet_osasis import __version__

    card = {
        "version": __version__,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "python": platform.python_version(),
        "preset": config.preset_name,
        "pretraining": {key: value for key, value in as_json(config.preset.pretrain).items() if key not in HOW},
        "adaptation": {key: value for key, value in as_json(config.adapt).items() if key not in HOW},
        "calibrator": as_json(config.calibrator),
        "student": one_pass_card(config),
        **{name: getattr(config, name) for name in ("hold_back", "detail", "readout")},
        "style_embedder": config.clip or "semantic encoder",
        "source_images": len(sources),
        "sources_sha256": sha256_of_array(sources.numpy()),
        "reference_sha256": sha256_of_array(references[0]),
    }
    if len(references) > 1:
        card["more_references_sha256"] = [sha256_of_array(one) for one in references[1:]]
    return card | {part: "taken from another stylizer" for part in lent}


def one_pass_card(config: BuildConfig) -> dict | str:
    """What the card says about one pass: how the student is trained, or that none is needed or wanted."""
    if config.distil.teacher(config.readout) is not None:
        return as_json(config.distil)
    if config.readout in NETWORK_READOUTS:
        return "none: distilling was left out"
    return f"none needed: {config.readout} is a map, one pass by itself, exactly"


def lent_calibrator(given: OSASISStylizer | None, sources: torch.Tensor) -> Calibrator | None:
    """Another stylizer's calibrator, if it was trained on these very images: it knows their scenes alone."""
    if given is None or given.calibrator is None:
        return None
    if given.card.get("sources_sha256") == sha256_of_array(sources.numpy()):
        return given.calibrator
    logging.getLogger(__name__).info("--from-stylizer was made on other images: the calibrator is trained anew.")
    return None


EXAMPLES = 5
"""Source images that pictures show."""


def measure(
    model: DiffusionAutoencoder,
    pairs: Sequence[StylePair],
    agreed: Agreement,
    calibrator: Calibrator | None,
    sources: torch.Tensor,
    config: CalibratorConfig,
) -> dict[str, Any]:
    """Quality of the pairs, agreement of the estimates, and the calibrator's worth on simulated references.

    Says so when the estimates disagree more than those of simulated references do. Nothing here needs a truth.
    """
    device = model.device
    qualities = [
        pair_quality(model, pair.reference.to(device), pair.counterparts.to(device), sources).to_json()
        for pair in pairs
        if pair.aligned
    ]
    simulated = None
    if calibrator is not None:
        simulation = try_calibrator(calibrator, sources, config)
        simulated = simulation.to_json()
        warn_if_outlying(agreed.disagreement, simulation, "The reference" if len(pairs) == 1 else "A reference")
    return {
        "references": len(pairs),
        "agreement": agreed.to_json(),
        "pair_quality": qualities,
        "simulated_references": simulated,
    }


def show_stylized(
    path: Path, stylizer: OSASISStylizer, sources: torch.Tensor, reference: torch.Tensor, style_a: torch.Tensor
) -> None:
    """A grid of source images, their stylized versions and the pair ``(y, y_A)``."""
    examples = evenly_spaced(sources, EXAMPLES)
    columns: Sequence = [
        ("source", examples),
        (f"stylized ({stylizer.config.readout})", stylizer.stylize(examples)),
        ("decoder's picture", stylizer.decode_style(examples)),
        ("reference", reference),
        ("reference as source", style_a),
    ]
    save_grid(path, columns, title="stylizer")
