"""From source images and one reference to a stylizer folder: pretrain, pair, adapt, read out, save."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import diffusers
import numpy as np
import torch

from nnunet_osasis.adagn import ConditionalUNet
from nnunet_osasis.adapt import AdaptConfig, adapt
from nnunet_osasis.autoencoder import DiffusionAutoencoder
from nnunet_osasis.border import field_of_view
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.intensity import IntensityRange, to_unit
from nnunet_osasis.local_affine import resize
from nnunet_osasis.pictures import save_grid
from nnunet_osasis.presets import Preset, as_json
from nnunet_osasis.pretrain import pretrain
from nnunet_osasis.readout import ColorMap, pixels_in_view
from nnunet_osasis.spn import StructurePreservingNetwork
from nnunet_osasis.storage import read_json, sha256_of_array
from nnunet_osasis.style.embedders import make_embedder
from nnunet_osasis.style_pair import make_style_pair
from nnunet_osasis.stylizer import OSASISStylizer, StylizerConfig
from nnunet_osasis.stylizer_folder import INDEX, is_stylizer_folder

WORK = "training"
"""Subfolder of the output for logs, grids and, until the end, checkpoints."""
FIT_IMAGES = 24
"""Source images the decoder's colour map is fitted on."""


@dataclass(frozen=True)
class BuildConfig:
    """All settings of one build; equal settings, images and seed give equal bytes on a CPU."""

    preset_name: str
    preset: Preset
    adapt: AdaptConfig = field(default_factory=AdaptConfig)
    readout: str = "pair"
    clip: str | None = None
    device: str = "cpu"


def fit_maps(
    stylizer: OSASISStylizer, sources: torch.Tensor, reference: torch.Tensor, counterparts: torch.Tensor
) -> dict[str, ColorMap]:
    """The colour maps of the parametric read-outs.

    Args:
        stylizer: with trained networks (its maps are not used).
        sources: ``(N, C, S, S)``; evenly spaced ones are decoded. reference: ``y`` ``(1, C, S, S)``.
        counterparts: ``y_A``, ``(K, C, S, S)``.
    """
    chosen = sources[np.unique(np.linspace(0, len(sources) - 1, FIT_IMAGES).round().astype(int))]
    decoded = torch.cat([stylizer.decode_style(part).cpu() for part in chosen.split(8)])
    view = field_of_view(chosen)
    plain, styled = pixels_in_view(chosen, view), pixels_in_view(decoded, view)
    y_a, y = pair_pixels(reference, counterparts)
    return {
        "decoder": ColorMap.fit(plain, styled),
        "decoder_inverse": ColorMap.fit(styled, plain),
        "pair": ColorMap.fit(y_a, y),
        "pair_inverse": ColorMap.fit(y, y_a),
    }


def pair_pixels(reference: torch.Tensor, counterparts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Matching pixels ``(N, C)`` of ``y_A`` and ``y``, inside the reference's field of view.

    The samples of ``y_A`` are averaged first: a map regressed on single, noisy samples has its contrast attenuated
    (errors in the regressor).
    """
    view = field_of_view(reference.cpu())
    mean = counterparts.cpu().mean(dim=0, keepdim=True)
    return pixels_in_view(mean, view), pixels_in_view(reference.cpu(), view)


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
        autoencoder: DiffusionAutoencoder | None = None,
        counterpart: torch.Tensor | None = None,
        tensorboard: Path | None = None,
    ) -> None:
        self.config, self.sources, self.intensity, self.output = config, sources, intensity, output
        self.reference, self.given, self.counterpart = reference, autoencoder, counterpart
        self.tensorboard = tensorboard
        size = config.preset.model["sample_size"]
        bounds = intensity.bounds(reference, name="the reference")
        self.y = resize(torch.from_numpy(to_unit(reference, bounds))[None], (size, size)).clamp(-1, 1)
        self.work = output / WORK

    def card(self) -> dict:
        """What the stylizer's card records: data hashes, settings and versions; no times, no paths."""
        from nnunet_osasis import __version__

        adapt_config = as_json(self.config.adapt)
        card = {
            "version": __version__,
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            "python": platform.python_version(),
            "preset": self.config.preset_name,
            "pretraining": as_json(self.config.preset.pretrain),
            "adaptation": adapt_config,
            "style_embedder": self.config.clip or "semantic encoder",
            "source_images": len(self.sources),
            "sources_sha256": sha256_of_array(self.sources.numpy()),
            "reference_sha256": sha256_of_array(self.reference),
        }
        if self.given is not None:
            card["pretraining"] = "taken from another stylizer"
        return card

    def run(self, *, resume: bool = False) -> OSASISStylizer:
        """Build, save, and return the stylizer.

        Raises ``OsasisError`` when the output already holds another stylizer or an unfinished run and ``resume`` is
        not asked for; ``KeyboardInterrupt`` after saving the state.
        """
        if is_stylizer_folder(self.output):
            return self._finished(resume)
        if not resume and any(self.work.glob("*.safetensors")):
            raise OsasisError(
                "The output must not hold an unfinished run",
                found=f"checkpoints in {self.work}",
                remedy="Add --resume to go on with it, or --overwrite to start again.",
            )
        model = self._autoencoder(resume)
        device, config = self.config.device, self.config.adapt
        y, sources = self.y.to(device), self.sources
        counterparts = make_style_pair(
            model, y, sources.to(device), config.pair, seed=config.seed, counterpart=self.counterpart
        )
        style_a = self._style_a(y, counterparts)
        torch.manual_seed(config.seed)
        spn = StructurePreservingNetwork(
            in_channels=sources.shape[1], time=config.spn_time, zero_init=config.spn_zero_init, **self.config.preset.spn
        ).to(device)
        embed = make_embedder(self.config.clip, model.semantic_encoder, sources[:64].to(device))
        decoder, spn = adapt(
            model, spn, embed, sources, style_a, y, config,
            work=self.work, resume=resume, tensorboard=self.tensorboard,
        )  # fmt: skip
        stylizer = self._assemble(model, decoder, spn)
        stylizer.maps = fit_maps(stylizer, sources, self.y, counterparts)
        self._show(stylizer, style_a)
        stylizer.save_pretrained(self.output)
        for checkpoint in self.work.glob("*.safetensors"):
            checkpoint.unlink()
        return stylizer

    def _finished(self, resume: bool) -> OSASISStylizer:
        recorded = read_json(self.output / INDEX, what="The stylizer's index").get("card")
        if not resume or recorded != self.card():
            raise OsasisError(
                "The output folder must not hold another stylizer",
                found=f"a finished stylizer in {self.output}",
                remedy="Choose another --output, or add --overwrite to replace it.",
            )
        return OSASISStylizer.from_pretrained(self.output, device=self.config.device)

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

    def _style_a(self, y: torch.Tensor, counterparts: torch.Tensor) -> torch.Tensor:
        """The one ``y_A`` that adaptation sees: the sample nearest to ``y``, or ``y`` itself recoloured."""
        if self.config.adapt.align_pair:
            y_a, pixels = pair_pixels(self.y, counterparts)
            recoloured = ColorMap.fit(pixels, y_a)(y).clamp(-1, 1)
            return torch.where(field_of_view(y), recoloured, y)
        distance = (counterparts - y).abs().mean(dim=(1, 2, 3))
        return counterparts[distance.argmin()][None]

    def _assemble(
        self, model: DiffusionAutoencoder, decoder: ConditionalUNet, spn: StructurePreservingNetwork
    ) -> OSASISStylizer:
        training = self.config.adapt.sampler
        config = StylizerConfig(
            readout=self.config.readout,
            sampler=replace(training, decode_steps=max(training.decode_steps, training.encode_steps)),
            intensity=self.intensity,
        )
        return OSASISStylizer(model, decoder, spn, reference=self.reference, maps={}, config=config, card=self.card())

    def _examples(self) -> torch.Tensor:
        return self.sources[np.unique(np.linspace(0, len(self.sources) - 1, 5).round().astype(int))]

    def _show_pretraining(self, iteration: int, model: DiffusionAutoencoder) -> None:
        """What the half-trained model already makes of the pair: source, recoloured source, reference, ``y_A``."""
        device = self.config.device
        pair = make_style_pair(
            model, self.y.to(device), self.sources.to(device), self.config.adapt.pair, seed=self.config.adapt.seed,
            counterpart=self.counterpart,
        )  # fmt: skip
        examples = self._examples()
        stylized = ColorMap.fit(*pair_pixels(self.y, pair))(examples)
        columns: Sequence = [
            ("source", examples),
            ("stylized (pair)", stylized),
            ("reference", self.y),
            ("reference as source", pair[:5]),
        ]
        save_grid(
            self.work / f"grid_pretrain_{iteration:07d}.png", columns, title=f"pretraining, iteration {iteration}"
        )

    def _show(self, stylizer: OSASISStylizer, style_a: torch.Tensor) -> None:
        examples = self._examples()
        columns: Sequence = [
            ("source", examples),
            (f"stylized ({self.config.readout})", stylizer.stylize(examples)),
            ("decoder's picture", stylizer.decode_style(examples)),
            ("reference", self.y),
            ("reference as source", style_a),
        ]
        save_grid(self.work / "grid_stylized.png", columns, title="stylizer")
