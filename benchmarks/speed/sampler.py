"""How near a sampler comes to the result of many steps, and what it costs.

    python benchmarks/speed/sampler.py --stylizer stylizer --images DIR

Every row encodes the images with D_A and decodes them with D_B and the SPN (whose sum over all steps is held).
``error`` is the mean absolute difference, in [-1, 1], to the result of 50 + 50 DDIM steps on the same quadratic grid;
``limit`` to 60 + 60 steps of second order, nearer to the differential equation; ``round_trip`` of D_A alone, to the
image itself. The last rows are diffusers' own multistep solvers, on their own grid of as many steps. Errors are taken
over all images; seconds, for batches of 8, are interleaved and are those of encoding and decoding alone.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepInverseScheduler, DPMSolverMultistepScheduler
from timing import measure, parser_of, ratios, write

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.diffusion.sampler import SamplerConfig, decode_images, encode_images, spn_injection
from nnunet_osasis.training.sources import folder_arrays, load_sources

Run = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def ours(stylizer: OSASISStylizer, config: SamplerConfig) -> Run:
    """Images to (stylized, reconstructed by D_A; the latter where ``round_trip`` is wanted)."""
    model = stylizer.autoencoder

    def run(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = model.semantic_encoder(images)
        noise = encode_images(model.unet, images, code, config)
        inject = spn_injection(stylizer.spn, images, config)
        back = decode_images(model.unet, noise, code, config) if run.whole else images  # type: ignore[attr-defined]
        return decode_images(stylizer.decoder, noise, code, config, inject=inject).clamp(-1, 1), back

    run.whole = True  # type: ignore[attr-defined]
    return run


def dpm_solver(stylizer: OSASISStylizer, t0: int, steps: int) -> Run:
    """diffusers' DPM-Solver++ (2M) and its inverse between the clean image and t0, without the SPN."""
    share = t0 / 1000
    options = {"beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 1000, "timestep_spacing": "linspace"}
    model = stylizer.autoencoder

    def walk(scheduler: object, levels: torch.Tensor, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        for t in levels:
            level = torch.full((len(x),), int(t), dtype=torch.long)
            x = scheduler.step(model.unet(x, level, code), t, x).prev_sample  # type: ignore[attr-defined]
        return x

    def run(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = model.semantic_encoder(images)
        up = DPMSolverMultistepInverseScheduler(**options)
        up.set_timesteps(round(steps / share))
        noise = walk(up, up.timesteps[:steps], images, code)
        down = DPMSolverMultistepScheduler(**options)
        down.set_timesteps(round(steps / share))
        down.set_begin_index(len(down.timesteps) - steps)
        return images, walk(down, down.timesteps[-steps:], noise, code)

    return run


def configurations(base: SamplerConfig) -> dict[str, SamplerConfig]:
    """What is compared, by name."""
    found = {}
    for order in (1, 2):
        for steps in ((20, 20), (15, 15), (10, 10), (10, 5), (8, 8), (5, 5)):
            for power in (2.0, 1.5) if steps in ((20, 20), (10, 10)) else (2.0,):
                name = f"{steps[0]}+{steps[1]}, order {order}, power {power:g}"
                found[name] = replace(
                    base, encode_steps=steps[0], decode_steps=steps[1], order=order, grid_power=power
                )  # fmt: skip
    found["bf16: 10+10, order 2, power 2"] = replace(
        found["10+10, order 2, power 2"], precision="bf16"
    )  # fmt: skip
    found["linear 50+50 (grid_power 1, order 1)"] = replace(
        base, encode_steps=50, decode_steps=50, order=1, grid_power=1.0
    )  # fmt: skip
    return found


@torch.inference_mode()
def main() -> None:
    """Errors of all, then the times of those of interest in turn."""
    warnings.filterwarnings("ignore")
    parser = parser_of(__doc__, "sampler.json")
    parser.add_argument("--stylizer", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--count", type=int, default=16, help="images, evenly spaced")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stylizer = OSASISStylizer.from_pretrained(args.stylizer)
    images, _ = load_sources(folder_arrays(args.images), stylizer.size, intensity=stylizer.config.intensity)
    images = images[:: max(1, len(images) // args.count)][: args.count]
    base = replace(stylizer.config.sampler, spn_steps=10, precision="fp32", order=1, grid_power=2.0)
    runs: dict[str, Run] = {name: ours(stylizer, config) for name, config in configurations(base).items()}
    many, _ = ours(stylizer, replace(base, encode_steps=50, decode_steps=50))(images)
    limit, _ = ours(stylizer, replace(base, encode_steps=60, decode_steps=60, order=2))(images)
    rows = {}
    for name, run in runs.items():
        made, back = run(images)
        encode, decode = (
            int(v) for v in name.split(":")[-1].replace("linear", "").split(",")[0].split("(")[0].split("+")
        )
        rows[name] = {
            "evaluations": encode + decode,
            "error": float(f"{(made - many).abs().mean().item():.4g}"),
            "limit": float(f"{(made - limit).abs().mean().item():.4g}"),
            "round_trip": float(f"{(back - images).abs().mean().item():.4g}"),
        }
        print(name, rows[name], flush=True)
    for steps in (20, 10):
        _, back = dpm_solver(stylizer, base.t0, steps)(images)
        rows[f"diffusers DPM-Solver++ 2M {steps}+{steps}"] = {
            "evaluations": 2 * steps,
            "round_trip": float(f"{(back - images).abs().mean().item():.4g}"),
        }
    for run in runs.values():
        run.whole = False  # type: ignore[attr-defined]
    batch = images[:8]
    timed = ("20+20, order 1, power 2", "10+10, order 2, power 2", "bf16: 10+10, order 2, power 2")
    tasks = {name: (lambda run=runs[name]: run(batch)) for name in (*timed, "linear 50+50 (grid_power 1, order 1)")}
    times = measure(tasks, rounds=args.rounds, warm_ups=1)
    result = {
        "images": len(images),
        "size": stylizer.size,
        "change": float(f"{(many - images).abs().mean().item():.4g}"),
        "many_steps_to_limit": float(f"{(many - limit).abs().mean().item():.4g}"),
        "rows": rows,
        "seconds_per_batch_of_8": times,
        "times_faster_than_20_20_of_order_1": ratios(times, timed[0]),
    }
    write(args.output, result, " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]))


if __name__ == "__main__":
    main()
