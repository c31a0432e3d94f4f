"""One-shot adaptation: ``D_B``, a copy of ``D_A``'s decoder, and the SPN learn the reference's style."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.diffusion.unet import ConditionalUNet
from nnunet_osasis.runtime.compute import generator_for
from nnunet_osasis.runtime.records import as_json
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_json
from nnunet_osasis.training.adaptation.embedders import StyleEmbedder
from nnunet_osasis.training.adaptation.recipes import AdaptConfig
from nnunet_osasis.training.adaptation.selection import DIVERGED
from nnunet_osasis.training.adaptation.steps import Adaptation
from nnunet_osasis.training.loop import HOW, Values, cosine, fit, recomputed, recomputes

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

    Several processes (see ``distributed.joined``) share the content images; the result is that of one.

    Args:
        model: ``D_A``, frozen.
        spn: a fresh structure-preserving network.
        embed: frozen style embedder.
        sources: source images ``(N, C, S, S)`` in [-1, 1], the content images.
        style_a: ``y_A`` ``(1, C, S, S)``, the same in all processes.
        style_b: ``y`` ``(1, C, S, S)``, the same in all processes.
        config: settings.
        work: folder of ``adapt.safetensors``, ``adapt.jsonl`` and, with ``select_every``, ``adapt_selected.json``.
        resume: continue from the checkpoint to the same weights (CPU).
        tensorboard: folder of TensorBoard events; None writes none.

    Returns:
        ``D_B``'s UNet and the SPN, averaged, of the iteration with the best score, in eval mode.

    Raises:
        OsasisError: fewer images than processes, a checkpoint of another run, a loss or scores that are not finite.
        KeyboardInterrupt: after the state has been saved.
    """
    run = Adaptation(model, spn, embed, sources, style_a, style_b, config)

    def step(iteration: int) -> Values:
        factor = cosine(iteration, config.iterations) if config.decay else 1.0
        run.optimizers["decoder"].param_groups[0]["lr"] = config.learning_rate * factor
        run.optimizers["spn"].param_groups[0]["lr"] = config.spn_learning_rate * factor
        generator = generator_for(config.seed, iteration, stream=3)
        chosen = torch.randint(len(sources), (config.contents,), generator=generator)
        return run.iterate(sources[chosen].to(style_a), iteration) | run.end_iteration(iteration + 1)

    # y_A is made from the others by the networks, and its last bits depend on the number of threads: a run may be
    # resumed with another one. Only where it is given is it an input of its own.
    inputs = (sources, style_a, style_b) if config.pair.maker == "file" else (sources, style_b)
    identity = {
        "stage": "adapt",
        "config": {key: value for key, value in as_json(config).items() if key not in HOW},
        "images": [sha256_of_array(tensor.cpu().numpy()) for tensor in inputs],
        "model": sha256_of_array(next(iter(model.parameters())).detach().cpu().numpy()),
        "embedder": embed.name,
    }
    heavy: list[torch.nn.Module] = [run.decoder, spn, model.semantic_encoder]
    with recomputed(heavy, on=recomputes(config.recompute, style_b.shape[-1])):
        fit(
            "adapt", step, run.state(sha256_of_json(identity)), iterations=config.iterations, work=work, resume=resume,
            save_every=config.checkpoint_every, log_every=1, group=run.group, tensorboard=tensorboard,
            remedy=DIVERGED,
        )  # fmt: skip
    selected = run.finish(work)
    if selected is not None and run.group.is_main:
        logger.info(
            "Adaptation: keeps the weights of iteration %d of %d (structure %.3f, style gap %.3f).",
            selected["iteration"], config.iterations, selected["structure"], selected["style_gap"],
        )  # fmt: skip
    return run.decoder.eval().requires_grad_(False), spn.eval().requires_grad_(False)
