"""What an image costs against its size, and a batch against its number: milliseconds per image.

    python benchmarks/speed/sizes.py --stylizer stylizer

Read-outs: the default map, the diffusion networks (their own size, the change carried to the image's), and the student
where the stylizer has one. ``stylize`` is the whole call, with the field of view and the checks; ``one_pass`` is the
module that works on the training device, without them. Images are noise, smoothed; no image is read. Interleaved
within a size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from timing import measure, parser_of, peak_memory, write

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.stylizer.names import STUDENT

SIDES = (64, 128, 256, 512, 1024, 2048)
BATCHES = (1, 2, 4, 8, 16, 32)


def scene(batch: int, channels: int, side: int) -> torch.Tensor:
    """Smooth noise in [-1, 1], ``(B, C, S, S)``."""
    noise = torch.randn(batch, channels, 16, 16, generator=torch.Generator().manual_seed(side))
    return torch.nn.functional.interpolate(noise * 0.4, size=(side, side), mode="bicubic").clamp(-1, 1)


def tasks_for(stylizer: OSASISStylizer, images: torch.Tensor) -> dict[str, Callable[[], object]]:
    """The read-outs on one batch. The networks' last result is forgotten before every run."""
    strength = torch.ones(len(images))
    default = stylizer.one_pass()
    tasks: dict[str, Callable[[], object]] = {
        "map, stylize": lambda: stylizer.stylize(images),
        "map, one_pass": lambda: default(images, strength),
        "networks (local_affine), stylize": lambda: stylizer.configured(readout="local_affine").stylize(images),
    }
    if stylizer.student is not None:
        student = stylizer.one_pass(readout=STUDENT)
        tasks["student, stylize"] = lambda: stylizer.stylize(images, readout=STUDENT)
        tasks["student, one_pass"] = lambda: student(images, strength)
    return {name: (lambda run=task: torch.inference_mode()(run)()) for name, task in tasks.items()}


def milliseconds(times: dict[str, dict], images: int) -> dict[str, dict]:
    """Per image."""
    keys = ("median", "quartile_1", "quartile_3")
    return {name: {key: round(1000 * one[key] / images, 3) for key in keys} for name, one in times.items()}


def main() -> None:
    """Sizes with one image, then batches of 256 px."""
    parser = parser_of(__doc__, "sizes.json")
    parser.add_argument("--stylizer", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--largest", type=int, default=2048)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stylizer = OSASISStylizer.from_pretrained(args.stylizer)
    by_side, by_batch = {}, {}
    for side in (s for s in SIDES if s <= args.largest):
        tasks = tasks_for(stylizer, scene(1, stylizer.in_channels, side))
        by_side[side] = milliseconds(measure(tasks, rounds=args.rounds, warm_ups=1), 1)
        print(side, {name: one["median"] for name, one in by_side[side].items()}, flush=True)
    for batch in BATCHES:
        tasks = tasks_for(stylizer, scene(batch, stylizer.in_channels, 256))
        by_batch[batch] = milliseconds(measure(tasks, rounds=max(2, args.rounds // 2), warm_ups=1), batch)
        print(batch, {name: one["median"] for name, one in by_batch[batch].items()}, flush=True)
    result = {
        "networks_size": stylizer.size,
        "milliseconds_per_image_by_side": by_side,
        "milliseconds_per_image_by_batch_at_256": by_batch,
        "peak_memory_mib": peak_memory(),
    }
    write(args.output, result, " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]))


if __name__ == "__main__":
    main()
