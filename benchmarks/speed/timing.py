"""What every script in this folder shares: what machine it was, and times taken in turn, so that they compare."""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from nnunet_osasis.runtime.records import atomic_write_json

PACKAGES = ("nnunet-osasis", "torch", "diffusers", "nnunetv2", "monai", "numpy")


def machine() -> dict[str, Any]:
    """Processor, threads, device and versions, as far as they matter for a time."""
    names = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    models = [line.split(":", 1)[1].strip() for line in names if line.startswith("model name")]
    capabilities = torch.cpu.get_capabilities()
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "avx512_bf16": bool(capabilities.get("avx512_bf16", False)),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "versions": {name: version(name) for name in PACKAGES},
    }


def summary(seconds: list[float]) -> dict[str, Any]:
    """Median, quartiles and extremes of repeated times in seconds."""
    ordered = sorted(seconds)
    low, _, high = statistics.quantiles(ordered, n=4) if len(ordered) > 1 else (ordered[0],) * 3
    rounded = {"median": statistics.median(ordered), "quartile_1": low, "quartile_3": high}
    rounded |= {"least": ordered[0], "most": ordered[-1]}
    return {name: float(f"{value:.5g}") for name, value in rounded.items()} | {"repeats": len(ordered)}


def measure(
    tasks: Mapping[str, Callable[[], object]], *, rounds: int = 7, warm_ups: int = 2, device: str = "cpu"
) -> dict[str, dict[str, Any]]:
    """Run every task once a round, in turn, so that what slows the machine down slows all of them alike.

    Returns ``summary`` of each task's seconds, after ``warm_ups`` rounds that do not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(warm_ups + rounds):
        for name, task in tasks.items():
            _wait(device)
            began = time.perf_counter()
            task()
            _wait(device)
            if turn >= warm_ups:
                seconds[name].append(time.perf_counter() - began)
    return {name: summary(values) | {"warm_ups": warm_ups} for name, values in seconds.items()}


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def ratios(times: Mapping[str, Mapping[str, float]], baseline: str) -> dict[str, float]:
    """How many times faster than ``baseline`` each task is, by medians of one run."""
    return {name: float(f"{times[baseline]['median'] / one['median']:.4g}") for name, one in times.items()}


def parser_of(doc: str | None, default: str) -> argparse.ArgumentParser:
    """``--output`` and ``--threads``, which every script takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / default)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    return parser


def write(path: Path, result: Mapping[str, Any], command: str) -> None:
    """The result with the machine and the command, whole or not at all."""
    atomic_write_json(path, {"command": command, "machine": machine(), **result})
