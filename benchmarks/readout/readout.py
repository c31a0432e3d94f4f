r"""Which read-out comes nearest to known truth: real images, two synthetic second cameras.

    OSASIS_DATA=/path/to/data python benchmarks/readout/readout.py --stylizer stylizer --camera A \
        --references 412 430 --output benchmarks/readout/camera_A.json

The stylizer gives the pretrained autoencoder (trained on ClinicDB 1-178). A camera model makes the second-camera
version of every image, so the truth is known. One held-out image (`--references`, never a test image), seen by that
camera with noise, is the reference: it is paired, adapted and read out as `osasis-pretrain-stylizer` does by default.
Every read-out and pooled Reinhard are compared with the truth on every fifth image of ClinicDB 504-612: mean CIEDE2000
at 64 px. These figures chose the default read-out, so its row is optimistic.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from skimage.color import deltaE_ciede2000, rgb2lab

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.build import BuildConfig, StylizerBuild
from nnunet_osasis.image_io import read_image
from nnunet_osasis.intensity import IntensityRange, to_unit
from nnunet_osasis.local_affine import resize
from nnunet_osasis.presets import get_preset
from nnunet_osasis.readout import READOUTS
from nnunet_osasis.statistics import PooledStatistics
from nnunet_osasis.storage import atomic_write_json


def camera(image: torch.Tensor, name: str, noise: np.random.Generator | None = None) -> torch.Tensor:
    """The second camera's view of ``(3, H, W)`` in [-1, 1]. A: cold light, cross-talk, gamma, sharpening, vignette;
    B: green light, less saturation, gamma, S-curve, blur."""
    v = (image.numpy().transpose(1, 2, 0) + 1) / 2
    light = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    y, x = np.mgrid[-1 : 1 : v.shape[0] * 1j, -1 : 1 : v.shape[1] * 1j]
    radius = ((x**2 + y**2) / 2)[..., None]
    if name == "A":
        light = light * [0.72, 1.02, 1.45] @ (0.88 * np.eye(3) + 0.04) * (1 - 0.35 * radius)
    else:
        light = light * [1.0, 1.2, 0.72] * (1 - 0.1 * radius)
    light = np.clip(light, 0, 1)
    v = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    if name == "A":
        v = v**0.82
        v = v + 0.7 * (v - gaussian_filter(v, (1, 1, 0)))
    else:
        grey = v.mean(axis=2, keepdims=True)
        v = np.clip(grey + 0.75 * (v - grey), 0, 1) ** 1.35
        v = gaussian_filter(0.5 * v + 0.5 * v * v * (3 - 2 * v), (0.7, 0.7, 0))
    if noise is not None:
        v = v + noise.normal(0, 0.015, v.shape)
    return torch.from_numpy(np.clip(v, 0, 1) * 2 - 1).float().permute(2, 0, 1)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean CIEDE2000 between two batches in [-1, 1]."""
    lab_a, lab_b = (rgb2lab(((v.permute(0, 2, 3, 1).numpy() + 1) / 2).clip(0, 1)) for v in (a, b))
    return float(deltaE_ciede2000(lab_a, lab_b).mean())


def load(folder: Path, numbers: list[int], size: int) -> torch.Tensor:
    """ClinicDB images ``(N, 3, size, size)`` in [-1, 1]."""
    arrays = (to_unit(read_image(folder / f"{n}.png").array, (0, 255)) for n in numbers)
    return torch.cat([resize(torch.from_numpy(a)[None], (size, size)) for a in arrays]).clamp(-1, 1)


def main() -> None:
    """One row per reference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stylizer", required=True)
    parser.add_argument("--camera", choices=("A", "B"), required=True)
    parser.add_argument("--references", type=int, nargs="+", default=[412, 430, 450, 470, 490])
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    folder = Path(os.environ["OSASIS_DATA"]) / "polyp/clinicdb/images"
    given = OSASISStylizer.from_pretrained(args.stylizer)
    source, test = load(folder, list(range(1, 179)), given.size), load(folder, list(range(504, 612, 5)), given.size)
    truth = torch.stack([camera(image, args.camera) for image in test])
    rows = []
    for number in args.references:
        view = camera(load(folder, [number], given.size)[0], args.camera, np.random.default_rng(number))
        native, began = ((view + 1) * 127.5).numpy(), time.perf_counter()
        config = BuildConfig("tiny", replace(get_preset("tiny"), model=dict(given.autoencoder.config)))
        with tempfile.TemporaryDirectory() as work:
            build = StylizerBuild(
                config, source, native, IntensityRange(), Path(work) / "s", autoencoder=given.autoencoder
            )
            stylizer = build.run()
        seconds = time.perf_counter() - began
        moved = PooledStatistics.of(source).move(test, to=PooledStatistics.of(view[None]))
        row = {"source": distance(test, truth), "pooled Reinhard": distance(moved, truth)}
        row |= {name: distance(stylizer.stylize(test, readout=name), truth) for name in READOUTS}
        rows.append({"camera": args.camera, "reference": number, "seconds": seconds, "ciede2000": row})
        print(rows[-1], flush=True)
        atomic_write_json(args.output, {"seed": 0, "threads": torch.get_num_threads(), "rows": rows})


if __name__ == "__main__":
    main()
