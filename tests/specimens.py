"""Specimens the tests share: drawn images, and a stylizer trained for seconds at 32 px by the real code."""

from __future__ import annotations

from dataclasses import replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.runtime.records import override
from nnunet_osasis.stylizer.calibrator import CalibratorConfig
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.training.adaptation.recipes import AdaptConfig
from nnunet_osasis.training.build import BuildConfig, StylizerBuild
from nnunet_osasis.training.distil import DistilConfig
from nnunet_osasis.training.presets import PRESETS, Preset

M = TypeVar("M", bound=torch.nn.Module)
SIZE = 32


def draw(seed: int, *, channels: int = 3, size: int = SIZE) -> np.ndarray:
    """A smooth coloured scene with a bright disc: ``(C, size, size)`` uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    image = np.empty((channels, size, size))
    for c in range(channels):
        a, b, phase = (*rng.uniform(0.5, 3, 2), rng.uniform(0, 6))
        image[c] = 110 + 50 * np.sin(6 * (a * x + b * y) + phase) - 15 * c
    cy, cx = rng.uniform(0.3, 0.7, 2)
    image += 45 * (((x - cx) ** 2 + (y - cy) ** 2) < 0.04)
    return np.clip(image + rng.normal(0, 2, image.shape), 1, 255).astype(np.uint8)


def tiny_preset(**changes: object) -> Preset:
    """The tiny preset shrunk to 32 px and a few thousand weights."""
    preset = PRESETS["tiny"]
    model = {
        **preset.model,
        "sample_size": SIZE,
        "block_out_channels": (16, 16, 32),
        "encoder_block_out_channels": (16, 16, 32, 32),
        "time_dim": 32,
        "z_dim": 32,
    }
    training = override(
        preset.pretrain, iterations=6, batch_size=4, precision="fp32", grid_every=100, checkpoint_every=2
    )
    return replace(
        preset, model=model, spn={"hidden_channels": (16, 32), "time_dim": 32}, pretrain=override(training, **changes)
    )


def tiny_adaptation(**changes: object) -> AdaptConfig:
    """Two iterations of the default recipe on a short grid."""
    config = AdaptConfig(iterations=2, contents=2, precision="fp32", checkpoint_every=1)
    sampler = replace(config.sampler, encode_steps=4, decode_steps=3)
    return override(replace(config, sampler=sampler, pair=replace(config.pair, samples=2, steps=4)), **changes)


def tiny_calibration(**changes: object) -> CalibratorConfig:
    """A calibrator of a few steps."""
    config = CalibratorConfig(iterations=4, batch_size=4, pixels=40, simulations=3, checkpoint_every=2)
    return override(config, **changes)


def tiny_distillation(**changes: object) -> DistilConfig:
    """A student of a few steps, beside whatever read-out the stylizer has."""
    config = DistilConfig(readout="local_affine", iterations=3, batch_size=2, width=8, checkpoint_every=1)
    return override(config, **changes)


def unit_images(count: int, *, channels: int = 3, first: int = 0) -> torch.Tensor:
    """``(count, channels, 32, 32)`` in [-1, 1]."""
    arrays = np.stack([draw(first + i, channels=channels) for i in range(count)])
    return torch.from_numpy(arrays.astype(np.float32) / 127.5 - 1)


def second_camera(image: np.ndarray) -> np.ndarray:
    """The same scene through another camera: gains and a tone curve, uint8."""
    gains = np.linspace(0.6, 1.3, len(image))[:, None, None]
    return np.clip(255 * (image / 255 * gains) ** 0.8, 0, 255).astype(np.uint8)


def build_tiny(output: Path, *, channels: int = 3, resume: bool = False, **changes: object) -> OSASISStylizer:
    """Build the tiny stylizer into ``output``."""
    torch.manual_seed(0)
    config = BuildConfig(
        "tiny", tiny_preset(), tiny_adaptation(**changes), tiny_calibration(), distil=tiny_distillation()
    )
    reference = second_camera(draw(99, channels=channels))
    build = StylizerBuild(config, unit_images(8, channels=channels), reference, IntensityRange(), output)
    return build.run(resume=resume)


def randomise(module: M) -> M:
    """Give every weight a value, so that zero-initialised layers do not hide what is behind them."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.1)
    return module


def stylize_on(device: str, folder: Path, queue: SimpleQueue) -> None:
    """For a process of its own: stylize with MONAI's transform on ``device`` and report how it went."""
    from monai_transforms import OSASISStylize
    from nnunet_osasis import OsasisError

    try:
        OSASISStylize(folder, device=device)(draw(0))
        queue.put("ran")
    except OsasisError as error:
        queue.put(str(error))
