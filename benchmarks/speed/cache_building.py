"""The cache of stylized cases, built by one process and by several: seconds, and that the pixels are equal.

    python benchmarks/speed/cache_building.py --stylizer STYLIZER [--readout local_affine]

Every build starts from nothing; builds take turns. Starting the processes counts. Bytes of files are not compared:
nnU-Net's own writer lets four threads order the blocks of a file.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import blosc2
import numpy as np
import torch
from nnunet_home import CONFIGURATION, DATASET, from_folders, make_home, phantoms
from timing import measure, parser_of, ratios, write

from nnunet_osasis.nnunet.cache import StylizedCache
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.stylizer.stylizer import OSASISStylizer


def main() -> None:
    """Measure and write."""
    parser = parser_of(__doc__, "cache_building.json")
    parser.add_argument("--stylizer", type=Path, required=True)
    parser.add_argument("--readout", help="another one than the stylizer's own")
    parser.add_argument("--images", type=Path, help="pictures; without them phantoms are rendered")
    parser.add_argument("--masks", type=Path, help="their masks, of the same names")
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as root:
        data = from_folders(args.images, args.masks, args.cases, args.size) if args.images else None
        images, masks = data or phantoms(args.cases, args.size)
        make_home(Path(root), images, masks, patch=128, batch=2, osasis={})
        setup = NnunetConfiguration.load(DATASET, CONFIGURATION)
        stylizer = OSASISStylizer.from_pretrained(args.stylizer)
        if args.readout:
            stylizer = stylizer.configured(readout=args.readout)
        found: dict[int, dict[str, np.ndarray]] = {}

        def build(processes: int) -> Callable[[], None]:
            def run() -> None:
                cache = StylizedCache(setup, stylizer, None, processes=processes)
                shutil.rmtree(cache.folder, ignore_errors=True)
                shutil.rmtree(cache.records, ignore_errors=True)
                cache.build(sorted(images))
                found[processes] = {path.name: blosc2.open(str(path))[:] for path in cache.folder.iterdir()}

            return run

        tasks = {f"{count} process(es)": build(count) for count in (1, args.processes)}
        times = measure(tasks, rounds=args.rounds, warm_ups=0)
        one, many = found[1], found[args.processes]
        equal = one.keys() == many.keys() and all(np.array_equal(one[name], many[name]) for name in one)
    settings = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    faster = ratios(times, "1 process(es)")
    write(
        args.output,
        {"settings": settings, "seconds": times, "times_faster": faster, "same_pixels": equal},
        " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
    )
    print(faster, "same pixels:", equal)


if __name__ == "__main__":
    main()
