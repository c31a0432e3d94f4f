"""How many training steps fit a time budget on this machine."""

from __future__ import annotations

import time

import torch

from nnunet_osasis.autoencoder import DiffusionAutoencoder
from nnunet_osasis.presets import Preset
from nnunet_osasis.pretrain import draw_batch, eps_loss
from nnunet_osasis.training import autocast


def steps_for(preset: Preset, minutes: float, *, channels: int, device: str, warm_up: int = 3, timed: int = 5) -> int:
    """Measure a few pretraining steps on random images and return how many fit ``minutes`` (at least 1).

    The answer depends on the machine, so a run that must repeat bit for bit names its iterations instead.
    """
    size = preset.model["sample_size"]
    model = DiffusionAutoencoder(in_channels=channels, **preset.model).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    images = torch.rand(4, channels, size, size) * 2 - 1
    began = time.perf_counter()
    for step in range(warm_up + timed):
        if step == warm_up:
            began = time.perf_counter()
        x0, t, noise = (v.to(device) for v in draw_batch(images, preset.pretrain, step, 1000))
        with autocast(preset.pretrain.precision, device):
            loss = eps_loss(model, x0, t, noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()
    return max(1, int(minutes * 60 / ((time.perf_counter() - began) / timed)))
