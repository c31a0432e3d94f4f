"""Seconds from ``osasis-pretrain-stylizer`` to a first restyled folder, by the commands alone.

    python benchmarks/speed/first_folder.py --images DIR --style IMAGE --count 20

``maps`` makes a stylizer with ``--stop-after maps`` and restyles the folder, gate included. Versions without that
option are run with ``--whole``: every stage, then the folder. Defaults of the ``tiny`` preset, on the CPU.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from timing import parser_of, write

SCRIPTS = "nnunet_osasis.scripts"


def timed(*line: str) -> float:
    """Seconds a command takes; ends the benchmark if it fails."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", *line], check=True, capture_output=True)
    return round(time.perf_counter() - began, 2)


def main() -> None:
    """One run."""
    parser = parser_of(__doc__, "first_folder.json")
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--style", required=True)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--whole", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "images").mkdir()
        for path in sorted(args.images.iterdir())[: args.count]:
            shutil.copyfile(path, root / "images" / path.name)
        stage = [] if args.whole else ["--stop-after", "maps"]
        folders = ["--images", str(root / "images"), "--style", args.style, "--output", str(root / "stylizer")]
        made = timed(f"{SCRIPTS}.pretrain_stylizer", *folders, "-device", "cpu", *stage)
        line = ["-i", str(root / "images"), "-o", str(root / "restyled"), "--stylizer", str(root / "stylizer")]
        restyled = timed(f"{SCRIPTS}.stylize", *line, "-device", "cpu")
    total = round(made + restyled, 2)
    result = {"images": args.count, "whole": args.whole, "pretrain": made, "stylize": restyled, "total": total}
    write(args.output, result, " ".join(sys.argv))


if __name__ == "__main__":
    main()
