"""DDIM round-trip error of a stylizer's autoencoder on images it has not seen.

    python benchmarks/round_trip/round_trip.py --stylizer stylizer --images DIR --output result.json

For t0 = 300 and 500, 10 and 20 steps each way, quadratic and linear grids: the mean absolute difference between an
image in [-1, 1] at the networks' size and its reconstruction by the same network, over all images of the folder.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import torch

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.diffusion.sampler import SamplerConfig, decode_images, encode_images
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.runtime.storage import sha256_of_array
from nnunet_osasis.training.sources import folder_arrays, load_sources


@torch.inference_mode()
def measure(stylizer: OSASISStylizer, images: torch.Tensor, config: SamplerConfig) -> dict[str, float]:
    """Mean absolute error per image, summarised, and seconds per image."""
    model, errors, began = stylizer.autoencoder, [], time.perf_counter()
    for batch in images.split(8):
        code = model.semantic_encoder(batch)
        back = decode_images(model.unet, encode_images(model.unet, batch, code, config), code, config)
        errors.append((back - batch).abs().mean(dim=(1, 2, 3)))
    error = torch.cat(errors)
    return {
        "mae_mean": error.mean().item(),
        "mae_std": error.std().item(),
        "mae_max": error.max().item(),
        "seconds_per_image": (time.perf_counter() - began) / len(images),
    }


def main() -> None:
    """Measure every grid and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stylizer", required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--every", type=int, default=1, help="take every n-th image")
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args()
    stylizer = OSASISStylizer.from_pretrained(args.stylizer)
    images, _ = load_sources(folder_arrays(args.images), stylizer.size, intensity=stylizer.config.intensity)
    images = images[:: args.every]
    rows = []
    for t0 in (300, 500):
        for power in (2.0, 1.0):
            for steps in (20, 10):
                config = SamplerConfig(t0=t0, encode_steps=steps, decode_steps=steps, grid_power=power)
                rows.append({"t0": t0, "steps": steps, "grid_power": power, **measure(stylizer, images, config)})
                print(json.dumps(rows[-1]), flush=True)
    card = stylizer.card
    result = {
        "images": len(images),
        "images_sha256": sha256_of_array(images.numpy()),
        "stylizer": {k: card[k] for k in ("preset", "pretraining", "source_images", "sources_sha256", "torch")},
        "machine": {
            "threads": torch.get_num_threads(),
            "system": f"{platform.system()} {platform.machine()}",
            "device": "cpu",
        },
        "rows": rows,
    }
    atomic_write_json(args.output, result)


if __name__ == "__main__":
    main()
