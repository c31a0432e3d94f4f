"""The steps of the one-shot adaptation, on one process's share of the images."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.ddim import ddim_step, linear_alpha_bar, predict_x0
from nnunet_osasis.diffusion.sampler import encode_images, spn_injection
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.diffusion.unet import ConditionalUNet
from nnunet_osasis.runtime import distributed as processes
from nnunet_osasis.runtime.compute import autocast, fused, generator_for, lay_out
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.training.adaptation.embedders import StyleEmbedder
from nnunet_osasis.training.adaptation.losses import Anchors, spn_loss, style_terms, transported
from nnunet_osasis.training.adaptation.recipes import AdaptConfig
from nnunet_osasis.training.adaptation.selection import Selection
from nnunet_osasis.training.checkpoint import EMA, TensorStore, TrainingState

SELECTED = "adapt_selected.json"
"""File in the work folder with the iteration whose weights were kept, and its score."""

CONTENT_TERMS = ("cross_domain", "in_domain", "adversarial", "statistics", "spn")
"""Terms that are means over the content images; what is left belongs to the style branch."""


@dataclass(frozen=True)
class Rows:
    """One process's part of an iteration's images.

    Attributes:
        whole: content images of all processes ``(B, C, S, S)``.
        content: this process's content images.
        embedded: style embeddings of ``content``.
        clean: the style image, if it is this process's, and ``content``.
        code: semantic codes of ``clean``.
        noise: ``clean`` encoded to where decoding starts.
    """

    whole: torch.Tensor
    content: torch.Tensor
    embedded: torch.Tensor
    clean: torch.Tensor
    code: torch.Tensor
    noise: torch.Tensor


class Adaptation:
    """The state of one run: two decoders, the SPN, their optimizers, and what stays constant.

    Of several processes each has its rows of the batch ``[style, content 1, content 2, ...]``, and the main one alone
    has averages and scores.
    """

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
        self.group, device = processes.current(), str(style_a.device)
        rows = self.group.rows(1 + config.contents, what="The style image and the content images together")
        self.styles = int(rows.start == 0)
        self.contents = slice(max(0, rows.start - 1), rows.stop - 1)
        model.requires_grad_(False)
        self.group.take_over([model, spn])
        self.model, self.spn, self.embed, self.config = model, spn, embed, config
        self.decoder: ConditionalUNet = copy.deepcopy(model.unet).requires_grad_(True).eval()
        lay_out(self.decoder, device)
        self.weights = config.weights()
        self.names = [name for name, weight in vars(self.weights).items() if weight]
        self.factors = style_a.new_tensor([getattr(self.weights, name) for name in self.names])
        self.anchors = Anchors.of(style_a, style_b, embed)
        self.alpha_bar = linear_alpha_bar().to(device)
        self.optimizers = {
            "decoder": torch.optim.Adam(self.decoder.parameters(), lr=config.learning_rate, fused=fused(device)),
            "spn": torch.optim.Adam(spn.parameters(), lr=config.spn_learning_rate, fused=fused(device)),
        }
        self.averages: dict[str, EMA] = {}
        self.selection = None
        if self.group.is_main:  # on the CPU: they are needed once an iteration, and the device has more to hold
            trained: dict[str, torch.nn.Module] = {"decoder": self.decoder, "spn": spn}
            self.averages = {name: EMA(module, config.ema_decay, "cpu") for name, module in trained.items()}
            if config.select_every:
                self.selection = Selection(model, sources, style_a, style_b, config.sampler, self.averages)
        with torch.no_grad():
            self.style_code = model.semantic_encoder(style_a)[: self.styles]
            self.style_noise = style_a[:0]
            if self.styles:
                self.style_noise = encode_images(model.unet, style_a, self.style_code, config.sampler)
        weights = [config.style_spn_weight] * self.styles + [config.sampler.spn_weight] * (rows.stop - rows.start)
        self.spn_weights = style_a.new_tensor(weights[: rows.stop - rows.start])[:, None, None, None]

    def state(self, identity: str) -> TrainingState:
        """Everything a checkpoint of this run holds."""
        averages: dict[str, TensorStore] = {**self.averages}
        if self.selection is not None:
            averages |= self.selection.states()
        return TrainingState(identity, {"decoder": self.decoder, "spn": self.spn}, averages, self.optimizers)

    def end_iteration(self, iteration: int) -> dict[str, float]:
        """Move the averages after ``iteration`` iterations and, where it is their turn, score them."""
        modules: dict[str, torch.nn.Module] = {"decoder": self.decoder, "spn": self.spn}
        for name, average in self.averages.items():
            average.update(modules[name], iteration)
        last = iteration == self.config.iterations
        if self.selection is None or not (last or iteration % self.config.select_every == 0):
            return {}
        return self.selection.consider(iteration, self.decoder, self.spn)

    def finish(self, work: Path) -> dict[str, float] | None:
        """Load the weights that are kept; returns the content of ``adapt_selected.json``, None without selection."""
        selected = self.group.from_main(lambda: self._keep(work))
        self.group.take_over([self.decoder, self.spn])
        return selected

    def _keep(self, work: Path) -> dict[str, float] | None:
        kept: Mapping[str, TensorStore] = self.averages if self.selection is None else self.selection.best
        self.decoder.load_state_dict(kept["decoder"].weights)
        self.spn.load_state_dict(kept["spn"].weights)
        if self.selection is None:
            (work / SELECTED).unlink(missing_ok=True)
            return None
        selected = self.selection.selected()
        atomic_write_json(work / SELECTED, selected)
        return selected

    def paper_terms(self, content: torch.Tensor, x_t0: torch.Tensor, noise: torch.Tensor, level: int) -> dict:
        """Eqs. 11 and 12, only where they have a weight; of rows that are not there they are left out."""
        terms: dict[str, torch.Tensor] = {}
        if self.weights.cycle:
            alpha_bar, encode = self.alpha_bar[level], self.model.semantic_encoder
            halves = []
            if len(content):
                mine, share = noise[self.contents], len(content) / len(noise)
                halves.append(
                    share * transported(self.decoder, self.model.unet, encode, content, mine, level, alpha_bar)
                )
            if self.styles:
                y = self.anchors.style_b
                halves.append(transported(self.model.unet, self.decoder, encode, y, noise[:1], level, alpha_bar))
            terms["cycle"] = torch.stack(halves).sum()
        if self.weights.spn and len(content):
            terms["spn"] = spn_loss(self.spn, content, x_t0, self.config.sampler.t0)
        return terms

    def iterate(self, whole: torch.Tensor, iteration: int) -> dict[str, float]:
        """One iteration on all content images ``(B, C, S, S)``: encode, then a loss and an optimizer step at every
        reverse step. Returns the mean terms and ``loss``, the same in all processes.
        """
        generator = generator_for(self.config.seed, iteration, stream=2)
        rows = self.encode(whole)
        x, grid = rows.noise, self.config.sampler.decode_grid()
        totals = x.new_zeros(len(self.names) + 1)
        for t, t_next in pairwise(reversed(grid)):
            x, terms = self.reverse_step(rows, x, t, t_next, generator)
            totals += terms / (len(grid) - 1)
        self.group.sum([totals])
        # the only wait for the device in an iteration, except for SPNs that take the index of a step
        return dict(zip([*self.names, "loss"], totals.tolist(), strict=True))

    @torch.no_grad()
    def encode(self, whole: torch.Tensor) -> Rows:
        """This process's rows of ``[style, content images (B, C, S, S)]``, carried to where decoding starts."""
        content = whole[self.contents]
        parts = [(self.anchors.style_a[: self.styles], self.style_code, self.style_noise)]
        embedded = content
        if len(content):
            code, embedded = self.model.semantic_encoder(content), self.embed(content)
            parts.append((content, code, encode_images(self.model.unet, content, code, self.config.sampler)))
        clean, code, noise = (torch.cat(part) for part in zip(*parts, strict=True))
        return Rows(whole, content, embedded, clean, code, noise)

    def reverse_step(
        self, rows: Rows, x: torch.Tensor, t: int, t_next: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode ``x`` from level ``t`` to ``t_next``, and one optimizer step on the clean images predicted meanwhile.

        Returns the next ``x``, detached, and this process's part of the terms and, last, of the loss.
        """
        config, styles, content = self.config, self.styles, rows.content
        level, drawn, noise = torch.full((len(x),), t, dtype=torch.long, device=x.device), 0, rows.whole[:0]
        if self.weights.cycle:
            drawn = int(torch.randint(1, config.sampler.t0 + 1, (1,), generator=generator))
            noise = torch.randn(rows.whole.shape, generator=generator).to(x)
        inject = spn_injection(self.spn, rows.clean, config.sampler, 1.0)
        with autocast(config.precision, str(x.device)):
            shifted = x + (self.spn_weights * inject(x, level)).float()
            eps = self.decoder(shifted, level, rows.code).float()
            x0 = predict_x0(shifted, eps, self.alpha_bar[t]).clamp(-1, 1)
            terms = style_terms(
                self.weights, self.embed, self.anchors, x0[:styles], content, rows.embedded, x0[styles:]
            ) | self.paper_terms(content, rows.noise[styles:], noise, drawn)
            share = len(content) / len(rows.whole)
            terms = {n: term.float() * (share if n in CONTENT_TERMS else 1) for n, term in terms.items()}
            values = torch.stack([terms.get(n, x.new_zeros(())) for n in self.names])
            loss = (values * self.factors).sum()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward()
        self.group.sum_gradients([self.decoder, self.spn])
        for optimizer in self.optimizers.values():
            optimizer.step()
        onward = ddim_step(shifted.detach(), eps.detach(), self.alpha_bar[t], self.alpha_bar[t_next])
        return onward, torch.cat([values, loss[None]]).detach()
