"""How many training steps fit a time budget on this machine."""

from __future__ import annotations

import time

import torch

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.presets import Preset
from nnunet_osasis.pretrain import PretrainSteps
from nnunet_osasis.runtime import distributed as processes
from nnunet_osasis.runtime.compute import lay_out
from nnunet_osasis.throughput import recomputed, recomputes


def steps_for(preset: Preset, minutes: float, *, channels: int, device: str, warm_up: int = 3, timed: int = 5) -> int:
    """Measure a few pretraining steps on random images and return how many fit ``minutes`` (at least 1).

    The answer depends on the machine, so a run that must repeat bit for bit names its iterations instead. Several
    processes call this together, and all get the main one's answer.
    """
    size = preset.model["sample_size"]
    model = DiffusionAutoencoder(in_channels=channels, **preset.model)
    lay_out(model, device)
    steps = PretrainSteps(model, torch.rand(4, channels, size, size) * 2 - 1, preset, device)
    began = time.perf_counter()
    with recomputed([model], on=recomputes(preset.pretrain.recompute, size)):
        for step in range(warm_up + timed):
            if step == warm_up:
                began = time.perf_counter()
            steps.step(steps.draw(step), step).tolist()
    found = max(1, int(minutes * 60 / ((time.perf_counter() - began) / timed)))
    return processes.current().from_main(lambda: found)
