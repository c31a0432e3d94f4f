"""How fast files are hashed here: what checking a cache before a training costs.

    python benchmarks/durability/hashing.py --megabytes 512 --output results/hashing.json

The file is read from memory (it has just been written), so this is the cost of the hash alone; a disk adds its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from nnunet_osasis.runtime.provenance import machine
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.runtime.storage import sha256_of_file


def main() -> None:
    """Hash a file of random bytes several times; the best time counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(np.random.default_rng(0).bytes(args.megabytes * 1_000_000))
        seconds = []
        for _ in range(args.repeats):
            began = time.perf_counter()
            sha256_of_file(path)
            seconds.append(time.perf_counter() - began)
    speed = round(args.megabytes / 1000 / min(seconds), 3)
    result = {"megabytes": args.megabytes, "gigabytes_per_second": speed, "machine": machine()}
    result["seconds"] = [round(value, 4) for value in seconds]
    if args.output is not None:
        atomic_write_json(args.output, result)
    print(f"{speed} GB/s")


if __name__ == "__main__":
    main()
