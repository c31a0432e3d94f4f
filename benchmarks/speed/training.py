"""Training speed: steps per second and memory per preset, and adaptation beside the reference's at equal network.

Each preset runs in a process of its own, so that peak memory is its own. ``images_a_step`` says how many images a
measured step had: small and base take fewer on a CPU than a training would (their steps are the preset's otherwise).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import timing
import torch
from memory import adaptation_peak
from reference_adaptation import CELEBA64, SPN, ReferenceStep, clip_tower

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.runtime.compute import generator_for, lay_out
from nnunet_osasis.runtime.records import override
from nnunet_osasis.training.adaptation.embedders import ClipEmbedder, SemanticEmbedder
from nnunet_osasis.training.adaptation.recipes import AdaptConfig
from nnunet_osasis.training.adaptation.steps import Adaptation
from nnunet_osasis.training.loop import recomputed, recomputes
from nnunet_osasis.training.presets import get_preset
from nnunet_osasis.training.pretrain import PretrainSteps

MEASURED = {"tiny": (16, 3, 5), "small": (4, 3, 2), "base": (1, 1, 2)}
"""Preset: images of a pretraining step, content images of an adaptation step, rounds."""
LEVELS = (450, 400)


def networks(model: dict, spn: dict, device: str) -> tuple[DiffusionAutoencoder, StructurePreservingNetwork]:
    """With values everywhere: zeros make some kernels faster."""
    torch.manual_seed(0)
    made = DiffusionAutoencoder(in_channels=3, **model)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    lay_out(made, device)
    return made, StructurePreservingNetwork(in_channels=3, **spn).to(device)


def images(count: int, size: int, device: str = "cpu") -> torch.Tensor:
    """``(count, 3, size, size)`` in [-1, 1]."""
    return (torch.rand(count, 3, size, size, generator=generator_for(0, count)) * 2 - 1).to(device)


def adaptation(
    model: DiffusionAutoencoder,
    spn: StructurePreservingNetwork,
    embed: object,
    contents: int,
    precision: str,
    device: str,
) -> tuple[Callable[[], object], Adaptation]:
    """One inner step of ours, as a call; the inversion before it is made once."""
    size = model.config.sample_size
    config = AdaptConfig(precision=precision, statistics=0.0, select_every=0, contents=contents)
    config = replace(config, sampler=replace(config.sampler, t0=500, encode_steps=1, decode_steps=1, order=1))
    shown = images(2, size, device)
    run = Adaptation(model, spn, embed, shown, shown[:1], shown[1:], config)  # type: ignore[arg-type]
    rows, generator = run.encode(images(contents, size, device)), generator_for(0, 0)
    return lambda: run.reverse_step(rows, rows.noise, *LEVELS, generator)[1].tolist(), run


def one(name: str, stage: str, precision: str, device: str) -> dict:
    """Seconds of a step of one preset, and this process's peak memory."""
    preset = get_preset(name)
    batch, contents, rounds = MEASURED[name]
    model, spn = networks(preset.model, preset.spn, device)
    size = model.config.sample_size
    if stage == "pretrain":
        preset = replace(preset, pretrain=override(preset.pretrain, batch_size=batch, precision=precision))
        steps = PretrainSteps(model.train(), images(2 * batch, size), preset, device)
        trained: list[torch.nn.Module] = [model]

        def task() -> object:
            return float(steps.step(steps.draw(0), 0)["loss"])
    else:
        model.eval().requires_grad_(False)
        embed = SemanticEmbedder(model.semantic_encoder, images(2, size, device))
        task, run = adaptation(model, spn, embed, contents, precision, device)
        trained = [run.decoder, spn, model.semantic_encoder]
    with recomputed(trained, on=recomputes("auto", size)):
        times = timing.measure({"step": task}, rounds=rounds, warm_ups=min(1, rounds - 1), device=device)["step"]
    memory = timing.peak_memory() if device == "cpu" else torch.cuda.max_memory_allocated() / 2**20
    count = batch if stage == "pretrain" else 1 + contents
    return {
        "preset": name, "stage": stage, "precision": precision, "side": size, "images_a_step": count,
        "seconds": times, "steps_per_second": float(f"{1 / times['median']:.3g}"),
        "images_per_second": float(f"{count / times['median']:.3g}"), "peak_memory_mib": round(memory),
        "memory_is": "resident" if device == "cpu" else "allocated", "recomputed": recomputes("auto", size),
    }  # fmt: skip


def against_the_reference(rounds: int) -> dict:
    """One inner step, 1 style and 1 content image at 64 px, equal decoder, SPN and CLIP; ours frozen and cached.

    The perceptual term is not the same: the reference's goes through VGG-16, ours through the semantic encoder.
    """
    model, spn = networks(CELEBA64, SPN, "cpu")
    model.eval().requires_grad_(False)
    shown = images(3, 64)
    theirs = ReferenceStep(model, clip_tower(), shown[:1], shown[1:2])
    x, code = torch.randn(2, 3, 64, 64), model.semantic_encoder(shown[:2])
    clip = ClipEmbedder(clip_tower(), (0.48, 0.46, 0.41), (0.27, 0.26, 0.28), 224, model.semantic_encoder)
    semantic = SemanticEmbedder(model.semantic_encoder, shown)
    tasks: dict[str, Callable[[], object]] = {
        "reference, fp32": lambda: theirs.step(x, shown[2:], code, *LEVELS),
        "ours, fp32": adaptation(model, spn, clip, 1, "fp32", "cpu")[0],
        "ours, bf16": adaptation(model, spn, clip, 1, "bf16", "cpu")[0],
        "ours without CLIP, fp32": adaptation(model, spn, semantic, 1, "fp32", "cpu")[0],
    }
    times = timing.measure(tasks, rounds=rounds, warm_ups=1)
    million = sum(p.numel() for p in model.unet.parameters()) / 1e6
    return {
        "unet_million": round(million, 2), "images": "1 style, 1 content, 64 px",
        "perceptual_term": {"reference": "VGG-16", "ours": "the semantic encoder's features"},
        "seconds": times, "times_faster": timing.ratios(times, "reference, fp32"),
    }  # fmt: skip


def main() -> None:
    """Everything, one preset after the other, then the reference."""
    parser = timing.parser_of(__doc__, "training.json")
    parser.add_argument("--presets", nargs="*", default=list(MEASURED))
    parser.add_argument("--rounds", type=int, default=5, help="of the comparison with the reference")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--one", nargs=3, metavar=("PRESET", "STAGE", "PRECISION"), help="one measurement, to stdout")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    if args.one:
        print(json.dumps(one(*args.one, args.device)))
        return
    began, rows, counted = time.perf_counter(), [], []
    for name in args.presets:
        for stage in ("pretrain", "adapt"):
            for precision in ("fp32", "bf16") if name == "tiny" else ("fp32",):
                command = [sys.executable, __file__, "--threads", str(args.threads), "--device", args.device]
                command += ["--one", name, stage, precision]
                found = subprocess.run(command, check=True, capture_output=True, text=True)
                rows.append(json.loads(found.stdout.splitlines()[-1]))
                print(f"{name} {stage} {precision}: {rows[-1]['steps_per_second']} steps/s", flush=True)
        for precision in ("fp32", "bf16"):
            for recompute in (False, True):
                settings = {"contents": 3, "precision": precision, "recompute": recompute}
                counted.append({"preset": name, **settings, **adaptation_peak(name, **settings)})
    result = {"presets": rows, "adaptation_memory_counted": counted}
    if args.rounds:
        result["beside_the_reference"] = against_the_reference(args.rounds)
    result["minutes"] = round((time.perf_counter() - began) / 60, 1)
    timing.write(args.output, result, f"python benchmarks/speed/{Path(__file__).name} {' '.join(sys.argv[1:])}".strip())


if __name__ == "__main__":
    main()
