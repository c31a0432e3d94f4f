r"""Does the change of detail (sharpness) bring pictures nearer to the truth at native size?

    OSASIS_DATA=/path/to/data python benchmarks/transfer/detail.py --output benchmarks/transfer/detail.json

Colours are brought to the truth by the best affine map first (an oracle), so that only detail differs. Each of five
references per camera gives a change of detail; SSIM and gradient correlation with the truth on two test images, without
and with it (noise is left out: it cannot be right pixel by pixel).
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transfer import difference, oracle, styled
from worlds import WORLDS, to_8_bit, unit

from nnunet_osasis.gate.structure import structure_agreement
from nnunet_osasis.images.io import read_image
from nnunet_osasis.maps.detail import DetailChange, DetailStatistics
from nnunet_osasis.maps.distance import ssim
from nnunet_osasis.maps.field_of_view import own_view
from nnunet_osasis.runtime.records import atomic_write_json


def sources(world: str, data: Path) -> list[Path]:
    """Every twelfth training image of ClinicDB, all of DRIVE."""
    if world == "clinicdb":
        return [data / f"polyp/clinicdb/images/{n}.png" for n in range(1, 409, 12)]
    return sorted((data / "retina/drive/images").glob("*_training.png"))


def main() -> None:
    """All rows of both sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    data, rows = Path(os.environ["OSASIS_DATA"]), []
    for name in ("clinicdb", "drive"):
        world = WORLDS[name](data, None, difference)
        pictures = (unit(read_image(file).array.astype(np.uint8)) for file in sources(name, data))
        own = [found for found in map(DetailStatistics.of, pictures) if found is not None]
        for camera in world.cameras:
            recolour = styled(oracle(world, camera))
            shown = [(recolour(world.tests[i]), world.twin(camera, "test", i, None)) for i in (0, 2)]
            for index, reference in enumerate(world.reference_names):
                seen = DetailStatistics.of(unit(world.twin(camera, "reference", index, index)))
                change = DetailChange.between(own, [] if seen is None else [seen])
                row = {"world": name, "camera": camera, "reference": reference, **change.to_json()}
                for label, one in (("without", DetailChange()), ("with", replace(change, noise=0.0))):
                    scores = []
                    for image, truth in shown:
                        x = unit(image)
                        view = own_view(x)
                        result = torch.where(view, one(x, view=view), x)
                        near = float(structure_agreement(result, unit(truth), view))
                        scores.append((ssim(to_8_bit(result), truth), near))
                    row |= dict(zip((f"ssim_{label}", f"structure_{label}"), np.mean(scores, 0).round(4), strict=True))
                rows.append(row)
                print(row, flush=True)
    atomic_write_json(args.output, rows)


if __name__ == "__main__":
    main()
