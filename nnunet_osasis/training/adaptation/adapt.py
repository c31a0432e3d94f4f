"""Stage 3: one-shot adaptation. ``D_B``, a copy of ``D_A``'s decoder, and the SPN learn the reference's style."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import torch
from tqdm import tqdm

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.diffusion.unet import ConditionalUNet
from nnunet_osasis.runtime.compute import generator_for
from nnunet_osasis.runtime.records import as_json
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_json
from nnunet_osasis.training.adaptation.embedders import StyleEmbedder
from nnunet_osasis.training.adaptation.steps import Adaptation as _Adaptation
from nnunet_osasis.training.checkpoint import Checkpoint
from nnunet_osasis.training.loop import Interruptible, RunLog, cosine, recomputed, recomputes
from nnunet_osasis.training.presets import HOW, AdaptConfig

logger = logging.getLogger(__name__)


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
        style_a, style_b: the style pair, each ``(1, C, S, S)``, the same in all processes.
        work: folder of ``adapt.safetensors``, ``adapt.jsonl`` and, with ``select_every``, ``adapt_selected.json``;
            ``resume`` continues to the same weights (CPU).

    Several processes (see ``processes.joined``) share the content images; the result is that of one.

    Returns:
        ``D_B``'s UNet and the SPN, averaged, of the iteration with the best score, in eval mode.

    Raises:
        OsasisError: fewer images than processes, a checkpoint of another run, a loss or scores that are not finite.
        KeyboardInterrupt: after the state has been saved.
    """
    run = _Adaptation(model, spn, embed, sources, style_a, style_b, config)
    # y_A is made from the others by the networks, and its last bits depend on the number of threads: a run may be
    # resumed with another one. Only where it is given is it an input of its own.
    given = (sources, style_a, style_b) if config.pair.maker == "file" else (sources, style_b)
    identity = {
        "stage": "adapt",
        "config": {k: v for k, v in as_json(config).items() if k not in HOW},
        "images": [sha256_of_array(v.cpu().numpy()) for v in given],
        "model": sha256_of_array(next(iter(model.parameters())).detach().cpu().numpy()),
        "embedder": embed.name,
    }
    group = run.group
    checkpoint = Checkpoint(work / "adapt.safetensors", sha256_of_json(identity), group)
    start, done = checkpoint.load(*run.states()) if resume else (0, False)
    if not done:
        log = RunLog(work / "adapt.jsonl", start=start, tensorboard=tensorboard and tensorboard / "adapt", group=group)
        bar = tqdm(
            total=config.iterations, initial=start, desc="adapt", unit="it", dynamic_ncols=True,
            disable=not group.is_main,
        )  # fmt: skip
        heavy: list[torch.nn.Module] = [run.decoder, spn, model.semantic_encoder]
        with (
            Interruptible() as interrupted, closing(log), bar,
            recomputed(heavy, on=recomputes(config.recompute, style_b.shape[-1])),
        ):  # fmt: skip
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
                asked = group.any(interrupted())
                if last or asked or (iteration + 1) % config.checkpoint_every == 0:
                    checkpoint.save(iteration + 1, *run.states(), done=last)
                if asked and not last:
                    raise KeyboardInterrupt
    found = run.finish(work)
    if found is not None and group.is_main:
        logger.info(
            "Adaptation: keeps the weights of iteration %d of %d (structure %.3f, style gap %.3f).",
            found["iteration"], config.iterations, found["structure"], found["style_gap"],
        )  # fmt: skip
    return run.decoder.eval().requires_grad_(False), spn.eval().requires_grad_(False)
