r"""The picture of docs/method.md: what each estimate makes of phantom scenes, beside the truth.

python benchmarks/transfer/phantom_picture.py --output docs/transfer.png
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from nnunet_osasis.images.grids import save_grid
from nnunet_osasis.maps.agreement import combine
from nnunet_osasis.maps.base import MeanMap
from nnunet_osasis.maps.color import difference
from nnunet_osasis.maps.field_of_view import own_view
from nnunet_osasis.maps.moments import MomentMap
from nnunet_osasis.maps.parametric import ParametricMap
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.stylizer.calibrator import CalibratorConfig
from nnunet_osasis.synthetic.phantoms import render_pair, scene_seed
from nnunet_osasis.training.calibrate import train_calibrator


def unit(image: np.ndarray) -> torch.Tensor:
    """``(H, W, 3)`` uint8 to ``(1, 3, H, W)`` in [-1, 1]."""
    return torch.from_numpy(np.moveaxis(image, -1, 0).astype(np.float32) / 127.5 - 1)[None]


def main() -> None:
    """Write the grid and print the distances to the truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--reference", type=int, default=0)
    args = parser.parse_args()
    small = torch.cat([resize(unit(render_pair(scene_seed("train", i))[0]), (64, 64)) for i in range(80)])
    reference = unit(render_pair(scene_seed("reference", args.reference))[1])
    tests = [render_pair(scene_seed("test_a", i), noise=False) for i in range(5)]
    images, truth = (torch.cat([unit(test[k]) for test in tests]) for k in (0, 1))
    with tempfile.TemporaryDirectory() as work:
        calibrator = train_calibrator(small, CalibratorConfig(), work=Path(work))
    y = resize(reference, (64, 64))
    estimates = {"moments": MomentMap.between(small, y), "calibrator": calibrator.maps(y)[0]}
    both, agreed = combine(list(estimates.values()), small[::4], own_view(small[::4]))
    shown = {
        "source": ParametricMap.affine(np.eye(3).tolist(), [0.0] * 3),
        **estimates,
        "combined": MeanMap(both.maps),
    }
    columns, view = [], own_view(images)
    for name, one in shown.items():
        result = torch.where(view, one(images).clamp(-1, 1), images)
        apart = float(difference(result.flatten(2), truth.flatten(2)).mean())
        print(f"{name}: {apart:.1f}")
        columns.append((f"{name} ({apart:.1f})", list(result)))
    columns += [("truth (0)", list(truth)), ("the reference", list(reference))]
    print(agreed.to_json())
    save_grid(args.output, columns, title="phantom; mean colour difference to the truth in brackets")


if __name__ == "__main__":
    main()
