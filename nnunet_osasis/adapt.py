"""Stage 3: one-shot adaptation. ``D_B``, a copy of ``D_A``'s decoder, and the SPN learn the reference's style."""

from __future__ import annotations

import copy
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import torch
from tqdm import tqdm

from nnunet_osasis.adagn import ConditionalUNet
from nnunet_osasis.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion import add_noise, ddim_step, linear_alpha_bar, predict_x0
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.presets import as_json
from nnunet_osasis.sampler import SamplerConfig, encode_images, spn_injection
from nnunet_osasis.spn import StructurePreservingNetwork
from nnunet_osasis.storage import sha256_of_array, sha256_of_json
from nnunet_osasis.style.embedders import StyleEmbedder
from nnunet_osasis.style.losses import Anchors, LossWeights, cycle_loss, get_losses, style_terms
from nnunet_osasis.style_pair import StylePairConfig
from nnunet_osasis.training import EMA, Checkpoint, Interruptible, RunLog, autocast, cosine, generator_for


@dataclass(frozen=True)
class AdaptConfig:
    """One-shot adaptation. Defaults are what held up at small scale; ``RECIPES["osasis"]`` is the official one.

    Attributes:
        losses: ``osasis`` or ``paper``. ``statistics``: extra weight of the statistics term.
        iterations: each takes ``contents`` real source images and one optimiser step per reverse step.
        sampler: grids of training; ``pair``: how the style pair is made.
        align_pair: use the reference recoloured by the pair's colour map as ``y_A`` (its structure then is the
            reference's own), not the sample itself.
        learning_rate, spn_learning_rate: of Adam on ``D_B`` and the SPN; ``decay`` lets both follow a cosine to 0.
        ema_decay: of the weights that are kept; 0 keeps the last ones.
        style_spn_weight: ``w`` on the style branch (content takes ``sampler.spn_weight``).
        spn_time, spn_zero_init: see ``StructurePreservingNetwork``.
    """

    losses: str = "osasis"
    statistics: float = 3.0
    iterations: int = 20
    contents: int = 3
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig(decode_steps=10))
    pair: StylePairConfig = field(default_factory=StylePairConfig)
    align_pair: bool = True
    learning_rate: float = 1e-4
    spn_learning_rate: float = 1e-4
    decay: bool = True
    ema_decay: float = 0.99
    style_spn_weight: float = 0.1
    spn_time: str = "real"
    spn_zero_init: bool = True
    precision: str = "auto"
    seed: int = 0
    checkpoint_every: int = 10

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.contents < 1:
            raise OsasisError("Adaptation needs at least one iteration and one content image", found=self.iterations)
        get_losses(self.losses)

    def weights(self) -> LossWeights:
        """The recipe's weights with the statistics term added."""
        return replace(get_losses(self.losses), statistics=self.statistics)


RECIPES: dict[str, AdaptConfig] = {
    "default": AdaptConfig(),
    # the published configuration, as its code runs (facts: linear grids 50/20, t0 = 500, one optimiser step per step)
    "osasis": AdaptConfig(
        statistics=0.0,
        iterations=50,
        contents=8,
        sampler=SamplerConfig(
            t0=500, encode_steps=25, decode_steps=10, grid_power=1.0, mix="style", level_alignment="official"
        ),
        pair=StylePairConfig(maker="sdedit", t0=500, steps=25, grid_power=1.0, samples=1),
        align_pair=False,
        learning_rate=5e-6,
        decay=False,
        ema_decay=0.0,
        style_spn_weight=1.0,
        spn_time="index",
        spn_zero_init=False,
    ),
}


def get_recipe(name: str) -> AdaptConfig:
    """Look a recipe up. Raises ``OsasisError`` naming those there are."""
    if name not in RECIPES:
        raise OsasisError("The adaptation recipe must be known", found=name, remedy=f"Use one of {', '.join(RECIPES)}.")
    return RECIPES[name]


class _Adaptation:
    """The state of one run: two decoders, the SPN, their optimisers, and what stays constant."""

    def __init__(
        self,
        model: DiffusionAutoencoder,
        spn: StructurePreservingNetwork,
        embed: StyleEmbedder,
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

    def states(self) -> tuple[dict, dict, dict]:
        """What a checkpoint holds."""
        return {"decoder": self.decoder, "spn": self.spn}, self.averages, self.optimizers

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
        work: folder of ``adapt.safetensors`` and ``adapt.jsonl``; ``resume`` continues to the same weights (CPU).

    Returns:
        ``D_B``'s UNet and the SPN, averaged, in eval mode.
    """
    run = _Adaptation(model, spn, embed, style_a, style_b, config)
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
                for name, module in run.states()[0].items():
                    run.averages[name].update(module, iteration + 1)
                log.write(iteration + 1, **totals)
                bar.update()
                bar.set_postfix(loss=f"{totals['loss']:.3f}", refresh=False)
                last = iteration + 1 == config.iterations
                if last or interrupted() or (iteration + 1) % config.checkpoint_every == 0:
                    checkpoint.save(iteration + 1, *run.states(), done=last)
                if interrupted() and not last:
                    raise KeyboardInterrupt
    run.decoder.load_state_dict(run.averages["decoder"].weights)
    spn.load_state_dict(run.averages["spn"].weights)
    return run.decoder.eval().requires_grad_(False), spn.eval().requires_grad_(False)
