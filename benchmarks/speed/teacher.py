"""The diffusion stylizer against the published schedule at equal networks and precision, seconds per image.

    python benchmarks/speed/teacher.py --stylizer stylizer --images DIR

``published`` is a plain re-implementation of the reference code's schedule: one image at a time, 50 DDIM steps up to
t = 500 on a linear grid, 25 down with the SPN added before each, float32. Ours: 10 + 10 steps of second order up to
t = 300 on the quadratic grid; the same in batches of 8; and the same in bf16. First with the
stylizer's own networks, then with networks of the reference's 64 px size and random weights.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from reference_adaptation import CELEBA64, SPN
from timing import measure, parser_of, ratios, write

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.ddim import linear_alpha_bar
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.training.presets import SAMPLER
from nnunet_osasis.training.sources import folder_arrays, load_sources


@torch.no_grad()
def published(stylizer: OSASISStylizer, images: torch.Tensor) -> torch.Tensor:
    """The reference code's way, written plainly: nothing is shared, batched or cast."""
    alpha_bar, done = linear_alpha_bar(), []
    up, down = [i * 10 for i in range(51)], [i * 20 for i in range(26)]
    for image in images.split(1):
        code = stylizer.autoencoder.semantic_encoder(image)
        x = image
        for t, after in pairwise(up):
            eps = stylizer.autoencoder.unet(x, torch.tensor([t]), code)
            x0 = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
            x = alpha_bar[after].sqrt() * x0 + (1 - alpha_bar[after]).sqrt() * eps
        for t, after in pairwise(reversed(down)):
            x = x + 0.1 * stylizer.spn(image, torch.tensor([t]))
            eps = stylizer.decoder(x, torch.tensor([t]), code)
            x0 = (x - (1 - alpha_bar[t]).sqrt() * eps) / alpha_bar[t].sqrt()
            x = alpha_bar[after].sqrt() * x0 + (1 - alpha_bar[after]).sqrt() * eps
        done.append(x)
    return torch.cat(done)


def compare(stylizer: OSASISStylizer, images: torch.Tensor, rounds: int) -> dict:
    """Seconds per image and ratios; every task stylizes the number of images its name says."""
    stylizer = stylizer.configured(sampler=replace(SAMPLER, precision="fp32"))
    halved = stylizer.configured(sampler=replace(SAMPLER, precision="bf16"))
    tasks = {
        "published, 1 image": lambda: published(stylizer, images[:1]),
        "ours, 1 image": lambda: stylizer.decode_style(images[:1]),
        f"ours, batch of {len(images)}": lambda: stylizer.decode_style(images),
        f"ours, batch of {len(images)}, bf16": lambda: halved.decode_style(images),
    }
    times = measure(tasks, rounds=rounds, warm_ups=1)
    for name, one in times.items():
        if "batch" in name:
            one |= {key: one[key] / len(images) for key in ("median", "quartile_1", "quartile_3", "least", "most")}
    return {
        "unet_parameters": sum(p.numel() for p in stylizer.autoencoder.unet.parameters()),
        "seconds_per_image": times,
        "times_faster_than_published": ratios(times, "published, 1 image"),
    }


def main() -> None:
    """Both sizes of networks, one after the other."""
    parser = parser_of(__doc__, "teacher.json")
    parser.add_argument("--stylizer", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stylizer = OSASISStylizer.from_pretrained(args.stylizer)
    images, _ = load_sources(folder_arrays(args.images), stylizer.size, intensity=stylizer.config.intensity)
    images = images[:8]
    result = {"the stylizer's networks": compare(stylizer, images, args.rounds)}
    torch.manual_seed(0)
    model = DiffusionAutoencoder(in_channels=stylizer.in_channels, **CELEBA64)  # type: ignore[arg-type]
    spn = StructurePreservingNetwork(in_channels=stylizer.in_channels, zero_init=False, **SPN)
    large = OSASISStylizer(
        model, copy.deepcopy(model.unet), spn, reference=stylizer.reference, maps={}, config=stylizer.config
    )
    resized = torch.nn.functional.interpolate(images[:4], size=(64, 64), mode="area")
    result["networks of the reference's 64 px size, random weights"] = compare(large, resized, max(2, args.rounds // 2))
    write(args.output, result, " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]))


if __name__ == "__main__":
    main()
