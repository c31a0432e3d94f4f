"""What a fresh process pays for the default stylizer, against one that only imports torch and reads the image.

    python benchmarks/speed/fresh_process.py --stylizer stylizer --image image.png

``torch and image`` imports torch and reads the image with Pillow; ``restyle`` loads the stylizer folder and restyles
the image in its own units. Both run in turn, each time in a new process. ``networks`` lists what the second process
holds of the three diffusion networks, and which heavy libraries it has imported.
"""

from __future__ import annotations

import json
import subprocess
import sys

import torch
from timing import measure, parser_of, write

READ = """
import sys, torch, numpy as np
from PIL import Image
array = np.moveaxis(np.asarray(Image.open(sys.argv[1])), -1, 0)
"""
RESTYLE = """
import sys
from nnunet_osasis import OSASISStylizer
from nnunet_osasis.images.io import read_image
stylizer = OSASISStylizer.from_pretrained(sys.argv[2])
restyled = stylizer.stylize_array(read_image(sys.argv[1]).array)
"""
FACTS = """
import gc, json, torch
held = [type(o).__name__ for o in gc.get_objects() if isinstance(o, torch.nn.Module)]
names = ("DiffusionAutoencoder", "ConditionalUNet", "StructurePreservingNetwork")
heavy = ("diffusers", "transformers", "torchvision", "monai", "nnunetv2", "skimage", "SimpleITK", "matplotlib")
print(json.dumps({"networks": [n for n in names if n in held], "imported": [m for m in heavy if m in sys.modules]}))
"""


def main() -> None:
    """Two commands in turn."""
    parser = parser_of(__doc__, "fresh_process.json")
    parser.add_argument("--stylizer", required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    def run(code: str) -> str:
        line = [sys.executable, "-c", code, args.image, args.stylizer]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout

    tasks = {"torch and image": lambda: run(READ), "restyle": lambda: run(RESTYLE)}
    rows = measure(tasks, rounds=args.rounds, warm_ups=1)
    ratio = rows["restyle"]["median"] / rows["torch and image"]["median"]
    facts = json.loads(run(RESTYLE + FACTS).splitlines()[-1])
    result = {"seconds": rows, "ratio": round(ratio, 3), **facts}
    write(args.output, result, " ".join(sys.argv))


if __name__ == "__main__":
    main()
