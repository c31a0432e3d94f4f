r"""The tables of benchmarks/transfer from the raw rows, and how each stated goal came out.

python benchmarks/transfer/report.py benchmarks/transfer/*_64.json benchmarks/transfer/*_native.json
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from nnunet_osasis.runtime.records import read_json
from nnunet_osasis.runtime.storage import atomic_write_bytes

FREE = ("histogram matching", "Reinhard", "pooled Reinhard", "FDA", "GIN", "histogram shift", "colour jitter")
TWIN = "oracle affine (reference's twin)"
ORDER = (
    "source", *FREE, "moments", "pair", "calibrator", "combined, held back", "combined", "combined of five", TWIN,
    "oracle affine (tests)", "truth",
)  # fmt: skip
Key = tuple[str, str, int]


def table(rows: list[dict], cameras: list[str]) -> list[str]:
    """Mean difference per method and camera, over references and seeds; structure; spread between seeds."""
    lines = [
        "| method | " + " | ".join(cameras) + " | all | sd of seeds | structure |",
        "|" + "---|" * (len(cameras) + 4),
    ]
    by_method = defaultdict(list)
    for row in rows:
        by_method[row["method"]].append(row)
    extra = [name for name in by_method if name not in ORDER]
    for method in [name for name in ORDER if name in by_method] + extra:
        own = by_method[method]
        cells = [np.mean([r["difference"] for r in own if r["camera"] == camera]) for camera in cameras]
        seeds = [np.mean([r["difference"] for r in own if r["seed"] == s]) for s in sorted({r["seed"] for r in own})]
        spread = f"{np.std(seeds, ddof=1):.2f}" if len(seeds) > 1 else ""
        kept = np.mean([r["structure"] for r in own])
        mean = np.mean([r["difference"] for r in own])
        name = f"**{method}**" if method == "combined" else method
        lines.append(
            f"| {name} | " + " | ".join(f"{c:.2f}" for c in cells) + f" | {mean:.2f} | {spread} | {kept:.3f} |"
        )
    return lines


def paired(rows: list[dict]) -> dict[str, dict[Key, float]]:
    """``{method: {(camera, reference, seed): difference}}``."""
    found: dict[str, dict[Key, float]] = defaultdict(dict)
    for row in rows:
        found[row["method"]][row["camera"], row["reference"], row["seed"]] = row["difference"]
    return found


def interval(values: np.ndarray, keys: list[Key], *, cameras: bool) -> tuple[float, float]:
    """95 % bootstrap interval of a mean. References are drawn anew (all seeds of one together, since
    cameras share them); with ``cameras`` the cameras too: then it speaks of other cameras as well."""
    rng = np.random.default_rng(0)
    rows, columns = (sorted({key[axis] for key in keys}) for axis in (0, 1))
    grid = np.array([[values[[k[:2] == (row, column) for k in keys]].mean() for column in columns] for row in rows])
    means = []
    for _ in range(4000):
        drawn = rng.integers(len(columns), size=len(columns))
        chosen = rng.integers(len(rows), size=len(rows)) if cameras else np.arange(len(rows))
        means.append(grid[np.ix_(chosen, drawn)].mean())
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def goals(rows: list[dict]) -> list[str]:
    """The goals the benchmark was made for, and what was measured."""
    by = paired(rows)
    keys = sorted(by["combined"])
    mine, reinhard, source, twin = (
        np.array([by[m][k] for k in keys]) for m in ("combined", "pooled Reinhard", "source", TWIN)
    )
    best_name = min((m for m in FREE if m in by), key=lambda m: np.mean([by[m][k] for k in keys]))
    best = np.array([by[best_name][k] for k in keys])
    low, high = interval(mine - best, keys, cameras=False)
    widest = interval(mine - best, keys, cameras=True)
    structure = {m: np.mean([r["structure"] for r in rows if r["method"] == m]) for m in ("combined", "truth")}
    several = by["combined of five"]
    five = np.mean(list(several.values())) / reinhard.mean()
    apart = [r["agreement"]["disagreement"] for r in rows if r["method"] == "combined"]
    errors = [r["difference"] for r in rows if r["method"] == "combined"]
    return [
        f"- Pooled Reinhard's distance times {mine.mean() / reinhard.mean():.2f} (goal: 0.5); "
        f"with five references {five:.2f}.",
        f"- The affine map fitted to the reference's true twin times {mine.mean() / twin.mean():.2f} (goal: 1.3).",
        f"- Against the best free control on average ({best_name}): {np.mean(mine - best):+.2f} (95 % interval "
        f"{low:+.2f} to {high:+.2f} for these cameras, {widest[0]:+.2f} to {widest[1]:+.2f} for cameras drawn "
        f"like them); nearer to the truth on {100 * np.mean(mine < best):.0f} % of {len(keys)} pairs "
        "and seeds (goal: 95 %).",
        f"- Worse than the unchanged source: {int(np.sum(mine > source))} of {len(keys)} (goal: none).",
        f"- Structure {structure['combined']:.3f}; the true rendering's own {structure['truth']:.3f} "
        "(goal: not less by more than 0.01).",
        f"- Correlation of the estimates' disagreement with the error: {np.corrcoef(apart, errors)[0, 1]:.2f}.",
    ]


def main() -> None:
    """Write report.md beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("report.md"))
    args = parser.parse_args()
    lines = [
        "# Known truth: which transfer comes nearest",
        "",
        "Written by `report.py` from the raw rows beside it. Mean CIEDE2000 to the truth inside the field of view",
        "(MR-like: absolute difference, black to white is 100), over five references and the seeds; less is better.",
        "`family` cameras have the form of the calibrator's training family, `physical` ones another.",
        "Structure: correlation of gradient magnitudes with the source, over the whole picture; the frames, which all",
        "share, lift it.",
    ]
    for file in args.files:
        found = read_json(file, what="Benchmark rows")
        lines += ["", f"## {found['world']}, {found['size']}" + (" px" if found["size"] == "64" else " size"), ""]
        lines += [
            f"{found['sources']} source images, {found['tests']} test images, seeds {found['seeds']}, "
            f"autoencoder {found['autoencoder']}, {found['threads']} CPU thread.", "",
        ]  # fmt: skip
        lines += [*table(found["rows"], found["cameras"]), "", *goals(found["rows"])]
    atomic_write_bytes(args.output, ("\n".join(lines) + "\n").encode())
    print(f"{args.output}")


if __name__ == "__main__":
    main()
