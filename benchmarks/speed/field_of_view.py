"""How often the field of view along lines (one pass) differs from the one by connected components, on real images.

    python benchmarks/speed/field_of_view.py --images clinicdb=FOLDER drive=FOLDER

Shares of pixels; ``image_for_frame``: pixels that one pass would change although they are frame.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from timing import parser_of, write

from nnunet_osasis.images.io import list_images, read_image
from nnunet_osasis.maps.field_of_view import field_of_view


def compare(files: list[Path]) -> dict[str, float]:
    """Over 8-bit pictures."""
    rows = []
    for path in files:
        image = torch.from_numpy(read_image(path).array.astype(np.float32) / 127.5 - 1)[None]
        by_components, by_lines = field_of_view(image), field_of_view(image, connected=False)
        wrong, missed = by_lines & ~by_components, by_components & ~by_lines
        rows.append([float(x.float().mean()) for x in (~by_components, wrong | missed, wrong, missed)])
    found = np.array(rows)
    return {
        "images": len(files),
        "identical": int((found[:, 1] == 0).sum()),
        "frame": float(found[:, 0].mean()),
        "different": float(found[:, 1].mean()),
        "different_most": float(found[:, 1].max()),
        "image_for_frame": float(found[:, 2].mean()),
        "frame_for_image": float(found[:, 3].mean()),
    }


def main() -> None:
    """Read, compare, write."""
    parser = parser_of(__doc__, "field_of_view.json")
    parser.add_argument("--images", nargs="+", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--most", type=int, default=60, help="images of a set, evenly spaced")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = {}
    for entry in args.images:
        name, folder = entry.split("=", 1)
        files = list_images(folder)
        result[name] = compare(files[:: max(1, len(files) // args.most)])
        print(name, result[name], flush=True)
    write(args.output, {"sets": result}, "field_of_view.py")


if __name__ == "__main__":
    main()
