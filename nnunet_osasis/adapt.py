"""Stage 3: one-shot adaptation. ``D_B``, a copy of ``D_A``'s decoder, and the SPN learn the reference's style."""

from __future__ import annotations

import copy
import logging
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import torch
from tqdm import tqdm

from nnunet_osasis.adagn import ConditionalUNet
from nnunet_osasis.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion import add_noise, ddim_step, linear_alpha_bar, predict_x0
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.presets import as_json
from nnunet_osasis.recipes import RECIPES, AdaptConfig, get_recipe
from nnunet_osasis.sampler import encode_images, spn_injection
from nnunet_osasis.snapshots import Selection
from nnunet_osasis.spn import StructurePreservingNetwork
from nnunet_osasis.storage import atomic_write_json, sha256_of_array, sha256_of_json
from nnunet_osasis.style.embedders import StyleEmbedder
from nnunet_osasis.style.losses import Anchors, cycle_loss, style_terms
from nnunet_osasis.training import EMA, Checkpoint, Interruptible, Kept, RunLog, autocast, cosine, generator_for

__all__ = ["RECIPES", "SELECTED", "AdaptConfig", "adapt", "get_recipe"]

logger = logging.getLogger(__name__)

SELECTED = "adapt_selected.json"
"""In the work folder: the iteration whose weights were kept, and its score."""


class _Adaptation:
    """The state of one run: two decoders, the SPN, their optimisers, and what stays constant."""

    def __init__(
        self,
        model: DiffusionAutoencoder,
        spn: StructurePreservingNetwork,
        embed: StyleEmbedder,
        sources: torch.Tensor,
        style_a: torch.Tensor,
        style_b: torch.Tensor,
        config: AdaptConfig,
    ) -> None:
        self.model, self.spn, self.embed, self.config = model, spn, embed, config
        self.decoder: ConditionalUNet = copy.deepcopy(model.unet).requires_grad_(True).eval()
        self.weights, self.anchors = config.weights(), Anchors.of(style_a, style_b, embed)
        self.alpha_bar = linear_alpha_bar().to(style_a.device)
        self.optimizers = {
            "decoder": torch.optim.Adam(self.decoder.parameters(), lr=config.learning_rate),
            "spn": torch.optim.Adam(spn.parameters(), lr=config.spn_learning_rate),
        }
        decay = config.ema_decay
        self.averages = {"decoder": EMA(self.decoder, decay), "spn": EMA(spn, decay)}
        with torch.no_grad():
            self.style_code = model.semantic_encoder(style_a)
            self.style_noise = encode_images(model.unet, style_a, self.style_code, config.sampler)
        self.selection = None
        if config.select_every:
            self.selection = Selection(model, sources, style_a, style_b, config.sampler, self.averages)

    def states(self) -> tuple[dict[str, torch.nn.Module], dict[str, Kept], dict[str, torch.optim.Adam]]:
        """What a checkpoint holds."""
        kept: dict[str, Kept] = {**self.averages}
        if self.selection is not None:
            kept |= self.selection.states()
        return {"decoder": self.decoder, "spn": self.spn}, kept, self.optimizers

    def end_iteration(self, iteration: int) -> dict[str, float]:
        """Move the averages after ``iteration`` iterations and, where it is their turn, score them."""
        for name, module in (("decoder", self.decoder), ("spn", self.spn)):
            self.averages[name].update(module, iteration)
        last = iteration == self.config.iterations
        if self.selection is None or not (last or iteration % self.config.select_every == 0):
            return {}
        return self.selection.consider(iteration, self.decoder, self.spn)

    def finish(self, work: Path) -> None:
        """Load the weights that are kept; ``adapt_selected.json`` and the log say whose they are."""
        for name, module in (("decoder", self.decoder), ("spn", self.spn)):
            kept: Kept = self.averages[name] if self.selection is None else self.selection.best[name]
            module.load_state_dict(kept.weights)
        if self.selection is None:
            (work / SELECTED).unlink(missing_ok=True)
            return
        found = self.selection.found()
        atomic_write_json(work / SELECTED, found)
        logger.info(
            "Adaptation: keeps the weights of iteration %d of %d (structure %.3f, style gap %.3f).",
            found["iteration"], self.config.iterations, found["structure"], found["style_gap"],
        )  # fmt: skip

    def one_step(self, x: torch.Tensor, t: torch.Tensor, code: torch.Tensor, unet: ConditionalUNet) -> torch.Tensor:
        """A one-call prediction of the clean image, as eq. 11's transports need it."""
        return predict_x0(x, unet(x, t, code).float(), self.alpha_bar[t][:, None, None, None]).clamp(-1, 1)

    def extra_terms(self, content: torch.Tensor, x_t0: torch.Tensor, generator: torch.Generator) -> dict:
        """Eqs. 11 and 12, only where they have a weight."""
        terms, config = {}, self.config.sampler
        if self.weights.cycle:
            t = torch.randint(1, config.t0 + 1, (1,), generator=generator).to(content.device)
            noise = torch.randn(content.shape, generator=generator).to(content)

            def transport(unet: ConditionalUNet, images: torch.Tensor) -> torch.Tensor:
                many = t.expand(len(images))
                x = add_noise(images, noise[: len(images)], self.alpha_bar[t][:, None, None, None])
                return self.one_step(x, many, self.model.semantic_encoder(images), unet)

            terms["cycle"] = cycle_loss(
                lambda x: transport(self.decoder, x),
                lambda y: transport(self.model.unet, y),
                content,
                self.anchors.style_b,
            )
        if self.weights.spn:  # the noise-invariance reading of eq. 12; its trivial minimum is a constant SPN
            t = torch.full((len(content),), config.t0, device=content.device)
            terms["spn"] = (
                (self.spn(x_t0, t) - self.spn(content, t)).square().mean(dim=(1, 2, 3)).add(1e-12).sqrt().mean()
            )
        return terms

    def iterate(self, content: torch.Tensor, iteration: int) -> dict[str, float]:
        """One iteration: encode, then a loss and an optimiser step at every reverse step. Returns mean terms."""
        config, device = self.config, str(content.device)
        generator = generator_for(config.seed, iteration, stream=2)
        with torch.no_grad():
            content_code = self.model.semantic_encoder(content)
            content_embedded = self.embed(content)
            content_noise = encode_images(self.model.unet, content, content_code, config.sampler)
        x = torch.cat([self.style_noise, content_noise])
        code = torch.cat([self.style_code, content_code])
        inject_style = spn_injection(self.spn, self.anchors.style_a, config.sampler, config.style_spn_weight)
        inject_content = spn_injection(self.spn, content, config.sampler)
        grid = config.sampler.decode_grid()
        totals: dict[str, float] = {}
        for t, t_next in pairwise(reversed(grid)):
            level = torch.full((len(x),), t, dtype=torch.long, device=x.device)
            with autocast(config.precision, device):
                shifted = x + torch.cat([inject_style(x[:1], level[:1]), inject_content(x[1:], level[1:])]).float()
                eps = self.decoder(shifted, level, code).float()
                x0 = predict_x0(shifted, eps, self.alpha_bar[t]).clamp(-1, 1)
                terms = style_terms(
                    self.weights, self.embed, self.anchors, x0[:1], content, content_embedded, x0[1:]
                ) | self.extra_terms(content, content_noise, generator)
                loss = torch.stack([getattr(self.weights, name) * term.float() for name, term in terms.items()]).sum()
            if not torch.isfinite(loss):
                raise OsasisError(
                    "The adaptation loss must stay finite",
                    found=f"{loss.item()} in iteration {iteration + 1}",
                    remedy="Lower --adapt-learning-rate, or check the reference image.",
                )
            for optimizer in self.optimizers.values():
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in self.optimizers.values():
                optimizer.step()
            for name, term in (terms | {"loss": loss}).items():
                totals[name] = totals.get(name, 0.0) + term.item() / (len(grid) - 1)
            x = ddim_step(shifted, eps, self.alpha_bar[t], self.alpha_bar[t_next]).detach()
        return totals


def adapt(
    model: DiffusionAutoencoder,
    spn: StructurePreservingNetwork,
    embed: StyleEmbedder,
    sources: torch.Tensor,
    style_a: torch.Tensor,
    style_b: torch.Tensor,
    config: AdaptConfig,
    *,
    work: Path,
    resume: bool = False,
    tensorboard: Path | None = None,
) -> tuple[ConditionalUNet, StructurePreservingNetwork]:
    """Fine-tune ``D_B`` and the SPN on one style pair (paper eqs. 7-13).

    Args:
        model: ``D_A``, frozen. spn: fresh. embed: frozen style embedder.
        sources: source images ``(N, C, S, S)`` in [-1, 1], the content images.
        style_a, style_b: the style pair, each ``(1, C, S, S)``.
        work: folder of ``adapt.safetensors``, ``adapt.jsonl`` and, with ``select_every``, ``adapt_selected.json``;
            ``resume`` continues to the same weights (CPU).

    Returns:
        ``D_B``'s UNet and the SPN, averaged, of the iteration with the best score, in eval mode.
    """
    run = _Adaptation(model, spn, embed, sources, style_a, style_b, config)
    # y_A is made from the others by the networks, and its last bits depend on the number of threads: a run may be
    # resumed with another one. Only where it is given is it an input of its own.
    given = (sources, style_a, style_b) if config.pair.maker == "file" else (sources, style_b)
    identity = {
        "stage": "adapt",
        "config": {k: v for k, v in as_json(config).items() if k != "checkpoint_every"},
        "images": [sha256_of_array(v.cpu().numpy()) for v in given],
        "model": sha256_of_array(next(iter(model.parameters())).detach().cpu().numpy()),
        "embedder": embed.name,
    }
    checkpoint = Checkpoint(work / "adapt.safetensors", sha256_of_json(identity))
    start, done = checkpoint.load(*run.states()) if resume else (0, False)
    if not done:
        log = RunLog(work / "adapt.jsonl", start=start, tensorboard=tensorboard and tensorboard / "adapt")
        bar = tqdm(total=config.iterations, initial=start, desc="adapt", unit="it", dynamic_ncols=True)
        with Interruptible() as interrupted, closing(log), bar:
            for iteration in range(start, config.iterations):
                factor = cosine(iteration, config.iterations) if config.decay else 1.0
                for optimizer, rate in zip(
                    run.optimizers.values(), (config.learning_rate, config.spn_learning_rate), strict=True
                ):
                    optimizer.param_groups[0]["lr"] = rate * factor
                generator = generator_for(config.seed, iteration, stream=3)
                chosen = torch.randint(len(sources), (config.contents,), generator=generator)
                totals = run.iterate(sources[chosen].to(style_a), iteration)
                log.write(iteration + 1, **totals, **run.end_iteration(iteration + 1))
                bar.update()
                bar.set_postfix(loss=f"{totals['loss']:.3f}", refresh=False)
                last = iteration + 1 == config.iterations
                if last or interrupted() or (iteration + 1) % config.checkpoint_every == 0:
                    checkpoint.save(iteration + 1, *run.states(), done=last)
                if interrupted() and not last:
                    raise KeyboardInterrupt
    run.finish(work)
    return run.decoder.eval().requires_grad_(False), spn.eval().requires_grad_(False)
