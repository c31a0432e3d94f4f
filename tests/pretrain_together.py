"""What each of several processes runs in test_processes.py: a short pretraining and a short adaptation.

Arguments: the folder to write, the number of the processes' own failure (``none``, ``kill`` or ``raise``), ``resume``.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from specimens import tiny_adaptation, tiny_preset, unit_images

from nnunet_osasis import OsasisError
from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.sampler import SamplerConfig
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.runtime import command as cli
from nnunet_osasis.runtime.distributed import current, joined
from nnunet_osasis.runtime.storage import save_tensors
from nnunet_osasis.training import pretrain as pretraining
from nnunet_osasis.training.adaptation.adapt import adapt
from nnunet_osasis.training.adaptation.embedders import make_embedder

FAILS_AT = 12


def fail(how: str) -> None:
    """Let the last process fail in iteration ``FAILS_AT``, after a checkpoint; with ``interrupt`` all go on to save."""
    real = pretraining.draw_batch

    def draw(images: torch.Tensor, config: object, iteration: int, timesteps: int) -> tuple:
        group = current()
        if iteration == FAILS_AT and group.index == group.count - 1:
            if how == "raise":
                raise OsasisError("The test asks for it")
            os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGINT)
        return real(images, config, iteration, timesteps)

    pretraining.draw_batch = draw


def train(output: Path, *, resume: bool = False) -> None:
    """Pretrain and adapt, and write all the weights that come out, of every process."""
    torch.set_num_threads(1)
    sampler = SamplerConfig(encode_steps=3, decode_steps=2)
    preset = tiny_preset(iterations=30, batch_size=5, checkpoint_every=10)
    torch.manual_seed(preset.pretrain.seed)
    start = DiffusionAutoencoder(in_channels=3, **preset.model).state_dict()
    if current().is_main:
        save_tensors(output / "start.safetensors", {f"0.{name}": value for name, value in start.items()})
    model = pretraining.pretrain(unit_images(8), preset, work=output, resume=resume)
    torch.manual_seed(0)
    spn = StructurePreservingNetwork(in_channels=3, **preset.spn)
    embed = make_embedder(None, model.semantic_encoder, unit_images(4))
    style_a = unit_images(1, first=20) * 0.6
    config = replace(tiny_adaptation(iterations=3, contents=4, select_every=2), sampler=sampler)
    made = adapt(model, spn, embed, unit_images(6), style_a, style_a * 0.7 + 0.2, config, work=output, resume=resume)
    tensors = {f"{i}.{k}": v for i, part in enumerate((model, *made)) for k, v in part.state_dict().items()}
    save_tensors(output / f"process {current().index}.safetensors", tensors)


def main() -> None:
    """Join the others, then train."""
    if sys.argv[2] != "none":
        fail(sys.argv[2])
    with joined("cpu"):
        train(Path(sys.argv[1]), resume="resume" in sys.argv)


if __name__ == "__main__":
    cli.run_command(main)
