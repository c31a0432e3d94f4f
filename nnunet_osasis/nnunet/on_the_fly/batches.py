"""Batches restyled in the training step: a new style and strength for every sample, on the training device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nnunet_osasis.nnunet.on_the_fly.measurements import MeasuredCase
from nnunet_osasis.nnunet.on_the_fly.renormalize import ChannelRules, restyle_normalized
from nnunet_osasis.nnunet.on_the_fly.transfer import OnePassTransfer
from nnunet_osasis.runtime.compute import as_usual


@dataclass(frozen=True)
class Draws:
    """Random choices for a batch, one entry per sample.

    Attributes:
        drawn: whether the sample is restyled.
        share: its strength as a share of the largest that its case may have, in [0, 1).
        style: index of its style.
    """

    drawn: np.ndarray
    share: np.ndarray
    style: np.ndarray

    @classmethod
    def draw(cls, seed: Sequence[int], count: int, *, probability: float, styles: int) -> Draws:
        """Draw for ``count`` samples; equal seeds (seed, rank, epoch, step) give equal draws, in any order and run."""
        rng = np.random.default_rng(tuple(seed))
        return cls(rng.random(count) < probability, rng.random(count), rng.integers(styles, size=count))


class BatchStyle:
    """Restyles the batches of nnU-Net's loader, after its augmentations.

    Noise, blur, brightness, contrast, low resolution, gamma and mirroring come in the loader's workers, so style comes
    after them. A patch shows a part of its case, and its place in it is not known here: the frame around the field of
    view is looked for in the patch alone, and terms of a map that depend on the place (a vignette, a shading), and a
    student, take the patch for the whole image. The cache does not have these two differences.
    Channels beyond the image's own (the one-hot maps of a cascade) are left as they are.

    Args:
        transfers: one per style, on the training device.
        measured: for each style, the cases by key.
        rules: how the configuration normalizes.
        probability: with which a sample is restyled.
        seed: of the draws: the user's number and the rank.
        device: the training device.
    """

    @as_usual()
    def __init__(
        self,
        transfers: Sequence[OnePassTransfer],
        measured: Sequence[dict[str, MeasuredCase]],
        rules: ChannelRules,
        *,
        probability: float,
        seed: Sequence[int],
        device: torch.device,
    ) -> None:
        self._transfers, self._rules, self._probability, self._seed = transfers, rules, probability, tuple(seed)
        self._device, self._limits = device, rules.limits().to(device)
        self._row = {key: row for row, key in enumerate(measured[0])}
        self._strengths = [[cases[key].strength for key in self._row] for cases in measured]
        self._numbers = [
            torch.stack([cases[key].numbers.as_tensor() for key in self._row]).to(device) for cases in measured
        ]

    def draws(self, count: int, *, epoch: int, step: int) -> Draws:
        """Draw for one batch of this rank."""
        seed = (*self._seed, epoch, step)
        return Draws.draw(seed, count, probability=self._probability, styles=len(self._transfers))

    @as_usual()
    def __call__(self, data: torch.Tensor, keys: Sequence[str], *, epoch: int, step: int) -> torch.Tensor:
        """Restyle some samples of ``(B, C, H, W)`` or ``(B, C, D, H, W)``, normalized; the result is on the device."""
        data = data.to(self._device, non_blocking=True)
        draws = self.draws(len(data), epoch=epoch, step=step)
        rows = [self._row[str(key)] for key in keys]
        result = data
        for style in range(len(self._transfers)):
            strengths = draws.share * [self._strengths[style][row] for row in rows]
            chosen = np.flatnonzero(draws.drawn & (draws.style == style) & (strengths > 0))
            if len(chosen):
                result = self.restyle(result, rows, chosen, strengths, style)
        return result

    @as_usual()
    def restyle(
        self,
        data: torch.Tensor,
        rows: Sequence[int],
        chosen: Sequence[int] | np.ndarray,
        strengths: np.ndarray,
        style: int,
    ) -> torch.Tensor:
        """Copy ``data`` with its ``chosen`` samples restyled. Nothing here waits for the device."""
        channels = len(self._rules.schemes)
        patches = torch.stack([data[i, :channels] for i in chosen])
        numbers = torch.stack([self._numbers[style][rows[i]] for i in chosen])
        amounts = torch.tensor([strengths[i] for i in chosen], dtype=torch.float32)
        amounts = (amounts.pin_memory() if data.is_cuda else amounts).to(data.device, non_blocking=True)
        changed = restyle_normalized(
            patches, numbers, amounts, self._rules, self._limits, self._transfers[style].restyle
        )
        result = data.clone()
        for i, image in zip(chosen, changed, strict=True):
            result[i, :channels] = image
        return result
