"""What this machine can do at most: bytes copied and products added per second, to hold the student's cost against.

    python benchmarks/speed/peak.py

Copies of a tensor far larger than the caches (read and write counted), and float32 products of square matrices.
"""

from __future__ import annotations

import torch
from timing import measure, parser_of, write

MEGABYTES, SIDE = 512, 2048


def main() -> None:
    """Both peaks, from the quickest of the runs."""
    args = parser_of(__doc__, "peak.json").parse_args()
    torch.set_num_threads(args.threads)
    source = torch.ones(MEGABYTES * 2**18)
    target, square = torch.empty_like(source), torch.randn(SIDE, SIDE)
    times = measure({"copy": lambda: target.copy_(source), "product": lambda: square @ square}, rounds=9)
    result = {
        "seconds": times,
        "gigabytes_per_second": round(2 * source.nbytes / times["copy"]["least"] / 1e9, 1),
        "gflop_per_second": round(2 * SIDE**3 / times["product"]["least"] / 1e9, 1),
    }
    print({key: value for key, value in result.items() if key != "seconds"})
    write(args.output, result, "python peak.py")


if __name__ == "__main__":
    main()
