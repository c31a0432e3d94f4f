"""What the structure gate adds to an image: milliseconds, and as a share of stylizing it with the default map.

    python benchmarks/speed/gate.py --stylizer stylizer --images DIR --masks DIR

Real images at their own size and, enlarged by whole pixels, at 2 and 4 times its sides. ``stylize`` restyles the array
in its own units; ``gate`` stylizes and scores it once, as it does when the first strength passes; ``gate, mask`` with
the lesions of the mask. Interleaved; medians over the images of each image's median.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timing import measure, parser_of, write

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.gate import StructureGate
from nnunet_osasis.images.io import list_images, read_image
from nnunet_osasis.stylizer.gating import own_gate


def tasks_for(
    stylizer: OSASISStylizer, gate: StructureGate, array: np.ndarray, labels: np.ndarray
) -> dict[str, Callable[[], object]]:
    """What is compared, on one image ``(C, H, W)`` in its own units and its mask ``(H, W)``."""

    changed = stylizer.stylize_array(array, strength=1.0)
    return {
        "stylize": lambda: stylizer.stylize_array(array, strength=1.0),
        "gate": lambda: gate(array, changed, 1.0),
        "gate, mask": lambda: gate(array, changed, 1.0, labels),
    }


def main() -> None:
    """Three sizes."""
    parser = parser_of(__doc__, "gate.json")
    parser.add_argument("--stylizer", required=True)
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--masks", required=True, type=Path)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stylizer = OSASISStylizer.from_pretrained(args.stylizer)
    gate = own_gate(stylizer)
    assert gate is not None, "the stylizer has no gate for its read-out"
    pairs = list(zip(list_images(args.images), list_images(args.masks), strict=True))
    rows = {}
    for times in (1, 2, 4):
        found: dict[str, list[float]] = {}
        for image, mask in pairs[:: max(1, len(pairs) // args.count)][: args.count]:
            grow = np.ones((1, times, times), np.uint8)
            array = np.kron(read_image(image).array, grow)
            labels = np.kron(read_image(mask).array, grow).max(axis=0) > 127

            for name, one in measure(tasks_for(stylizer, gate, array, labels), rounds=args.rounds, warm_ups=1).items():
                found.setdefault(name, []).append(1000 * one["median"])
        medians = {name: statistics.median(values) for name, values in found.items()}
        rows["x".join(map(str, array.shape[1:]))] = {
            "milliseconds": {name: round(value, 2) for name, value in medians.items()},
            "of_stylizing": {name: round(value / medians["stylize"], 2) for name, value in medians.items()},
        }
        print(list(rows.items())[-1], flush=True)
    write(args.output, {"sizes": rows}, " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]))


if __name__ == "__main__":
    main()
