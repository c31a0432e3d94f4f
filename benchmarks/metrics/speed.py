"""Seconds per map: this project's metrics against PySODMetrics, on the same maps and the same processes.

    python benchmarks/metrics/speed.py --pysod-python other_environment/bin/python --images 300 --repeats 3

Both score Dice, IoU and specificity over 256 thresholds, weighted F, S, E (maximum, mean, adaptive), MAE; 256 x 256
maps with truths of one to three blobs. Each side is two processes that hold their half of the maps in memory and have
imported their libraries. A repeat is timed from the word "go" to the last answer (wall) and inside the processes (CPU,
which other work on the machine disturbs less). Repeats alternate between the sides. A virtual environment of its own
for PySODMetrics (``pip install pysodmetrics``) keeps its OpenCV out of the project's. Without ``--pysod-python`` only
this project is timed, and the result says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIZE, PROCESSES = 256, 2
NAMES = ("dice_mean", "iou_mean", "specificity_mean", "wf", "s", "e_max", "e_mean", "e_adaptive", "mae")
SIDES = {"nnunet_osasis": "ours", "pysodmetrics": "pysod"}


def draw_maps(first: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """``(map, truth)`` pairs, uint8: blurred noisy maps for even numbers, masks for odd ones."""
    pairs = []
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    for seed in range(first, first + count):
        rng = np.random.default_rng(seed)
        level = np.full((SIZE, SIZE), -1.0)
        for _ in range(rng.integers(1, 4)):
            (cy, cx), (ry, rx) = rng.uniform(40, SIZE - 40, 2), rng.uniform(12, 60, 2)
            level = np.maximum(level, 1 - np.hypot((y - cy) / ry, (x - cx) / rx))
        shifted = np.roll(level, rng.integers(-6, 7, 2), (0, 1))
        values = 1 / (1 + np.exp(-8 * shifted)) + 0.03 * rng.standard_normal(level.shape)
        values = values if seed % 2 == 0 else shifted > 0
        pairs.append((np.clip(255 * values, 0, 255).astype(np.uint8), (level > 0).astype(np.uint8) * 255))
    return pairs


def score_ours() -> Callable[[np.ndarray, np.ndarray], dict[str, float]]:
    """This project's scorer, with PySODMetrics' conventions."""
    from nnunet_osasis.evaluation.metrics import PYSODMETRICS, score_case

    return lambda p, t: score_case(p / 255, t > 128, protocol=PYSODMETRICS, metrics=NAMES)


def score_pysod() -> Callable[[np.ndarray, np.ndarray], dict[str, float]]:
    """PySODMetrics' scorer."""
    import py_sod_metrics as sod

    handlers = {"dice": sod.DICEHandler, "iou": sod.IOUHandler, "specificity": sod.SpecificityHandler}

    def score(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        curves = sod.FmeasureV2({n: h(with_dynamic=True, with_adaptive=False) for n, h in handlers.items()})
        s, e, wf, mae = sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure(), sod.MAE()
        for metric in (curves, s, e, wf, mae):
            metric.step(prediction, truth)
        em = e.get_results()["em"]
        found = {f"{name}_mean": result["dynamic"].mean() for name, result in curves.get_results().items()}
        found |= {"wf": wf.get_results()["wfm"], "s": s.get_results()["sm"], "mae": mae.get_results()["mae"]}
        found |= {"e_max": em["curve"].max(), "e_mean": em["curve"].mean(), "e_adaptive": em["adp"]}
        return {name: float(found[name]) for name in NAMES}

    return score


def work(side: str, first: int, count: int) -> None:
    """A worker: draw, import, say ready, then score all maps at every line of input."""
    score = {"ours": score_ours, "pysod": score_pysod}[side]()
    pairs = draw_maps(first, count)
    versions = {"numpy": np.__version__, "python": platform.python_version()}
    score(*pairs[0])
    print(json.dumps(versions), flush=True)
    for _ in sys.stdin:
        began = time.process_time()
        found = [score(*pair) for pair in pairs]
        spent = time.process_time() - began
        print(json.dumps([spent, [[values[name] for name in NAMES] for values in found]]), flush=True)


def start(python: str, side: str, images: int) -> list[subprocess.Popen]:
    """The two workers of a side, ready."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    half = images // PROCESSES
    return [
        subprocess.Popen(
            [python, str(Path(__file__).resolve()), "--work", side, str(i * half), str(half)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        for i in range(PROCESSES)
    ]  # fmt: skip


def ask(workers: list[subprocess.Popen]) -> tuple[float, float, np.ndarray]:
    """Wall seconds until both workers have scored, their CPU seconds, and the values ``(images, metrics)``."""
    began = time.perf_counter()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    lines = [worker.stdout.readline() for worker in workers if worker.stdout is not None]
    seconds = time.perf_counter() - began
    answers = [json.loads(line) for line in lines]
    return seconds, sum(spent for spent, _ in answers), np.concatenate([values for _, values in answers])


def main() -> None:
    """Time both sides and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pysod-python", help="a Python that has pysodmetrics")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "speed.json")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work[0], int(args.work[1]), int(args.work[2]))
        return
    pythons = {"nnunet_osasis": sys.executable, "pysodmetrics": args.pysod_python}
    workers = {name: start(python, SIDES[name], args.images) for name, python in pythons.items() if python}
    versions = {name: json.loads(pair[0].stdout.readline()) for name, pair in workers.items()}  # type: ignore[union-attr]
    for pair in workers.values():
        pair[1].stdout.readline()  # type: ignore[union-attr]
    wall: dict[str, list[float]] = {name: [] for name in workers}
    cpu: dict[str, list[float]] = {name: [] for name in workers}
    values: dict[str, np.ndarray] = {}
    for repeat in range(args.repeats):
        for name in list(workers) if repeat % 2 == 0 else list(reversed(workers)):
            seconds, spent, values[name] = ask(workers[name])
            wall[name].append(seconds)
            cpu[name].append(spent)
            print(f"{name}: {seconds:.2f} s, CPU {spent:.2f} s, for {len(values[name])} maps", flush=True)
    for worker in (worker for pair in workers.values() for worker in pair):
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait()
    result = {
        "images": PROCESSES * (args.images // PROCESSES),
        "size": [SIZE, SIZE],
        "metrics": NAMES,
        "processes": PROCESSES,
        "threads_per_process": 1,
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "wall_seconds": wall,
        "cpu_seconds_of_both_processes": cpu,
        "cpu_milliseconds_per_image": {n: 1000 * statistics.median(s) / len(values[n]) for n, s in cpu.items()},
    }
    if args.pysod_python:
        versions["pysodmetrics"]["pysodmetrics"] = subprocess.run(
            [args.pysod_python, "-c", "from importlib.metadata import version; print(version('pysodmetrics'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        result["largest_difference"] = float(np.abs(values["nnunet_osasis"] - values["pysodmetrics"]).max())
        for name, spent in (("wall", wall), ("cpu", cpu)):
            medians = {side: statistics.median(values) for side, values in spent.items()}
            result[f"times_faster_{name}"] = medians["pysodmetrics"] / medians["nnunet_osasis"]
    else:
        result["skipped"] = "PySODMetrics was not timed: no --pysod-python was given"
    args.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
