"""Which form a one-pass student should have: fidelity to the teacher, structure and time of four designs.

    python benchmarks/speed/student_designs.py --stylizer STYLIZER --images FOLDER --first-test 409 --work WORK
    python benchmarks/speed/student_designs.py --times-only --output benchmarks/speed/results/student_designs_times.json

The teacher is the read-out ``local_affine``. Designs: ``pooled`` (the stylizer's own affine map pooled over decoded
images), ``grid`` (a bilateral grid of affine maps, sliced by a learned pointwise guide, as HDRNet does), ``field`` (a
field of affine maps: the design that was chosen, with and without the loss on slopes) and ``unet`` (a residual U-Net at
the image's own size). All are trained on the same pairs at the networks' size; images go by their files' numbers, and
those from ``--first-test`` on are for testing only.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import measure, parser_of, write
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from nnunet_osasis.images.intensity import to_unit
from nnunet_osasis.images.io import list_images, read_image
from nnunet_osasis.maps.field_of_view import own_view
from nnunet_osasis.maps.local_affine import carry_change
from nnunet_osasis.maps.resize import resample, resize
from nnunet_osasis.runtime.compute import generator_for
from nnunet_osasis.runtime.storage import load_tensors, save_tensors
from nnunet_osasis.stylizer.student import FieldNetwork, LocalAffineStudent, apply_field
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.training.calibrate import random_crop
from nnunet_osasis.training.distil import DistilConfig, compare, imitation_loss
from nnunet_osasis.training.loop import one_cycle

SIZES = (256, 1024)


class GridStudent(nn.Module):
    """HDRNet's form: maps that also depend on a guide, a learned curve of each pixel's channels."""

    def __init__(self, channels: int, size: int, width: int, bins: int = 4) -> None:
        super().__init__()
        self.size, self.bins, self.outputs = size, bins, channels * (channels + 1)
        self.field = FieldNetwork(channels, self.outputs * bins, width)
        self.guide = nn.Sequential(nn.Conv2d(channels, 8, 1), nn.SiLU(), nn.Conv2d(8, 1, 1), nn.Sigmoid())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        grid = self.field(resample(images, self.size, self.size))
        place = self.guide(images) * (self.bins - 1)
        total = torch.zeros_like(images)
        for k, part in enumerate(grid.split(self.outputs, dim=1)):
            hat = (1 - (place - k).abs()).clamp(min=0)
            total = torch.addcmul(total, hat, apply_field(part, images))
        return total


class UNetStudent(nn.Module):
    """A residual U-Net at the image's own size."""

    def __init__(self, channels: int, width: int = 12) -> None:
        super().__init__()

        def block(a: int, b: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(a, b, 3, stride, 1), nn.GroupNorm(4, b), nn.SiLU(), nn.Conv2d(b, b, 3, 1, 1), nn.SiLU()
            )

        a, b, c = width, 2 * width, 4 * width
        self.fine, self.middle, self.coarse = block(channels, a), block(a, b, 2), block(b, c, 2)
        self.up_middle, self.up_fine = block(c + b, b), block(b + a, a)
        self.last = nn.Conv2d(a, channels, 3, 1, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        fine = self.fine(images)
        middle = self.middle(fine)
        up = F.interpolate(self.coarse(middle), size=middle.shape[-2:], mode="bilinear")
        up = F.interpolate(self.up_middle(torch.cat([up, middle], 1)), size=fine.shape[-2:], mode="bilinear")
        return images + self.last(self.up_fine(torch.cat([up, fine], 1)))


def designs(channels: int, size: int, width: int) -> dict[str, tuple[nn.Module, float]]:
    """Networks before training, and the weight of the loss on slopes."""
    made = {}
    for name, make, slope in (
        ("field", lambda: LocalAffineStudent(channels, size, width), DistilConfig().slope_weight),
        ("field_without_slopes", lambda: LocalAffineStudent(channels, size, width), 0.0),
        ("grid", lambda: GridStudent(channels, size, width), 0.0),
        ("unet", lambda: UNetStudent(channels), 0.0),
    ):
        torch.manual_seed(0)
        made[name] = (make(), slope)
    return made


def read(files: list[Path], stylizer: OSASISStylizer) -> list[torch.Tensor]:
    """Images ``(1, C, H, W)`` in [-1, 1] at their own sizes."""
    arrays = [read_image(path).array for path in files]
    return [torch.from_numpy(to_unit(a, stylizer.config.intensity.bounds(a)))[None] for a in arrays]


def decoded(stylizer: OSASISStylizer, small: torch.Tensor, path: Path) -> torch.Tensor:
    """The teacher's pictures of ``small`` ``(N, C, S, S)``, kept in ``path``."""
    if not path.is_file():
        parts = [stylizer.decode_style(part) for part in tqdm(small.split(8), desc="teacher")]
        save_tensors(path, {"decoded": torch.cat(parts)})
    return load_tensors(path, what="The teacher's pictures")["decoded"]


def train(network: nn.Module, slope: float, before: torch.Tensor, after: torch.Tensor, config: DistilConfig) -> None:
    """As ``distil.train_student`` does, one direction."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    pairs, channels = torch.cat([before, after], dim=1), before.shape[1]
    for iteration in tqdm(range(config.iterations), desc=type(network).__name__):
        generator = generator_for(config.seed, iteration, stream=9)
        optimizer.param_groups[0]["lr"] = config.learning_rate * one_cycle(iteration, config.iterations)
        chosen = pairs[torch.randint(len(pairs), (config.batch_size,), generator=generator)]
        x, y = random_crop(chosen, config.crop, generator).split(channels, dim=1)
        view = own_view(x)
        if isinstance(network, LocalAffineStudent):
            loss = imitation_loss(network, x, y, view, slope)
        else:
            loss = ((network(x) - y).abs() * view).mean() / view.float().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()


def scores(change, before: list[torch.Tensor], after: list[torch.Tensor]) -> dict[str, float]:
    """Means of ``student_fidelity.compare`` over images of any size, restyled by ``change``."""
    rows = []
    for x, y in zip(before, after, strict=True):
        found = torch.where(own_view(x), change(x).clamp(-1, 1), x)
        rows.append(compare(x, found, torch.where(own_view(x), y.clamp(-1, 1), x)))
    return {name: round(float(np.mean([row[name] for row in rows])), 4) for name in rows[0] if name != "images"}


def times(networks: dict[str, nn.Module], channels: int, rounds: int) -> dict[str, dict]:
    """Milliseconds for one image of each size."""
    found = {}
    for size in SIZES:
        image = torch.rand(1, channels, size, size) * 2 - 1
        tasks = {name: partial(network, image) for name, network in networks.items()}
        found[str(size)] = measure(tasks, rounds=rounds)
    return found


def main() -> None:
    """Train, score, time, write."""
    parser = parser_of(__doc__, "student_designs.json")
    parser.add_argument("--stylizer", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--first-test", type=int, default=409, help="number of the first image that is for testing")
    parser.add_argument("--every", type=int, nargs=2, default=(4, 3), help="use every n-th training and test image")
    parser.add_argument("--work", type=Path, help="folder that keeps the teacher's pictures")
    parser.add_argument("--iterations", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--times-only", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = DistilConfig(iterations=args.iterations)
    fidelity: dict[str, dict] = {}
    made = {name: pair[0].eval() for name, pair in designs(3, 64, config.width).items()}
    if not args.times_only:
        stylizer = OSASISStylizer.from_pretrained(args.stylizer)
        files = sorted(list_images(args.images), key=lambda path: int(re.sub(r"\D", "", path.stem)))
        numbers = {path: int(re.sub(r"\D", "", path.stem)) for path in files}
        parts = {
            "train": [p for p in files if numbers[p] < args.first_test and numbers[p] % args.every[0] == 0],
            "test": [p for p in files if numbers[p] >= args.first_test][:: args.every[1]],
        }
        own = {name: read(paths, stylizer) for name, paths in parts.items()}
        side = (stylizer.size, stylizer.size)
        small = {name: torch.cat([resize(x, side).clamp(-1, 1) for x in images]) for name, images in own.items()}
        after = {name: decoded(stylizer, small[name], args.work / f"{name}.safetensors") for name in parts}
        goal = {name: carry_change(small[name], after[name], small[name]).clamp(-1, 1) for name in parts}
        pieces = {name: list(zip(small[name].split(1), after[name].split(1), own[name], strict=True)) for name in parts}
        native = [carry_change(x, y, image) for x, y, image in pieces["test"]]
        networks = designs(small["train"].shape[1], stylizer.size, config.width)
        for network, slope in networks.values():
            train(network.train(), slope, small["train"], goal["train"], config)
        made = {name: pair[0].eval() for name, pair in networks.items()}
        with torch.inference_mode():
            for name, change in {"pooled": stylizer.color_map("decoder"), **made}.items():
                fidelity[name] = {
                    "network_size": scores(change, list(small["test"].split(1)), list(goal["test"].split(1))),
                    "own_size": scores(change, own["test"], native),
                }
                print(name, fidelity[name])
    with torch.inference_mode():
        seconds = times(made, 3, args.rounds)
    facts = {
        "parameters": {name: sum(p.numel() for p in network.parameters()) for name, network in made.items()},
        "iterations": config.iterations,
        "images": {name: len(paths) for name, paths in parts.items()} if not args.times_only else None,
    }
    write(args.output, {**facts, "fidelity": fidelity, "seconds": seconds}, "student_designs.py")


if __name__ == "__main__":
    main()
