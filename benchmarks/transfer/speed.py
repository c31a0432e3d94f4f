r"""Milliseconds per image of the default read-out and of the free controls, one CPU thread.

python benchmarks/transfer/speed.py --output benchmarks/transfer/speed.json
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transfer import RANGE

from nnunet_osasis.border import field_of_view
from nnunet_osasis.calibrator import Calibrator
from nnunet_osasis.controls import FourierDomainAdaptation, HistogramMatching, PooledReinhard, Reinhard
from nnunet_osasis.estimates import MeanMap
from nnunet_osasis.moment_map import MomentMap
from nnunet_osasis.phantoms import render_pair
from nnunet_osasis.storage import atomic_write_json


def median_ms(run: Callable[[], object], rounds: int = 21) -> dict[str, float]:
    """Median and spread after three warm-up calls."""
    spent = []
    for index in range(rounds + 3):
        began = time.perf_counter()
        run()
        if index >= 3:
            spent.append(1e3 * (time.perf_counter() - began))
    low, _, high = statistics.quantiles(spent, n=4)
    return {"median_ms": round(statistics.median(spent), 3), "quartile_1": round(low, 3), "quartile_3": round(high, 3)}


def main() -> None:
    """256 and 1024 px, colour."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size in (256, 1024):
        image, other, _ = render_pair(0, size=size)
        native, reference = (np.moveaxis(v, -1, 0) for v in (image, other))
        x, y = (torch.from_numpy(v.astype(np.float32) / 127.5 - 1)[None] for v in (native, reference))
        both = MeanMap((MomentMap.between(x, y), Calibrator(3).maps(y[..., :64, :64])[0]))
        methods: dict[str, Callable[[], object]] = {
            "combined": lambda x=x, both=both: torch.where(field_of_view(x), both(x), x),
            "field of view alone": lambda x=x: field_of_view(x),
        }
        for name, control in (
            ("pooled Reinhard", PooledReinhard.fit([native], reference, value_range=RANGE)),
            ("Reinhard", Reinhard(reference, value_range=RANGE)),
            ("histogram matching", HistogramMatching(reference, value_range=RANGE)),
            ("FDA", FourierDomainAdaptation(reference, value_range=RANGE)),
        ):
            methods[name] = lambda control=control, native=native: control.stylize_array(native)
        with torch.inference_mode():
            rows += [{"size": size, "method": name, **median_ms(run)} for name, run in methods.items()]
    facts = {"machine": platform.machine(), "threads": 1, "torch": torch.__version__, "rows": rows}
    atomic_write_json(args.output, facts)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
