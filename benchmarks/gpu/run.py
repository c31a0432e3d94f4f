"""What needs a GPU, in one command: same pixels, images a second, training, nnU-Net's step, and a real study.

    python benchmarks/gpu/run.py --data FOLDER --out gpu_results            (see README.md)
    python benchmarks/gpu/run.py --tiny --device cpu --out /tmp/tiny        (does it run at all?)
    python benchmarks/gpu/run.py --table gpu_results/results.json

Steps run in the order of their worth, each in a process of its own that ends when its time does. Results are saved
after every entry; the same command again goes on with what is missing, failed or was cut off.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "speed"), str(HERE.parents[1] / "tests" / "contracts")]

RESULTS = "results.json"
PRELOAD = ["torch", "diffusers", "monai.inferers", "nnunet_osasis.stylizer.stylizer"]
"""What every step imports: a fork server does it once. None of it touches the GPU."""


@dataclass(frozen=True)
class Step:
    """One part of the benchmark.

    Attributes:
        name: ``module.function`` of this folder; the function takes a ``Book``.
        title: for people.
        share: of the time, in seconds of nine minutes; what a step leaves over goes to the next ones.
        least: seconds without which it is not begun.
    """

    name: str
    title: str
    share: int
    least: int
    spawned: bool = False
    """Whether it starts workers itself, which have to end with it: not by the fork server that all steps share."""


STEPS = (
    Step("measures.pixels", "every read-out on the device against the CPU", 25, 10),
    Step("measures.speed", "images a second: map, student, networks", 65, 20),
    Step("measures.train", "adaptation at 256 px, and training steps of tiny, small, base", 45, 15),
    Step("measures.nnunet", "nnU-Net's training step: stock, cached, on the fly", 30, 12),
    Step("study.study", "a real study: what the diffusion model is worth at 128 px", 375, 120, spawned=True),
)
WHOLE = sum(step.share for step in STEPS)


def main(argv: Sequence[str] | None = None) -> int:
    """Plan, run what is not done, save after every step; returns 1 if a step failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu_results"), help="folder of results and work")
    parser.add_argument("--data", type=Path, help="folder that pack.py wrote the images to, for the study")
    parser.add_argument("--minutes", type=float, default=9.0, help="bounds the whole (default: 9)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the smallest scale, on drawn images")
    parser.add_argument("--steps", nargs="+", choices=[step.name.split(".")[1] for step in STEPS], metavar="STEP")
    parser.add_argument("--table", type=Path, metavar="JSON", help="print the results as markdown and end")
    args = parser.parse_args(argv)
    if args.table:
        from table import tables

        print(tables(args.table))
        return 0
    return run(args)


def run(args: argparse.Namespace) -> int:
    """Run the chosen steps within the time."""
    from nnunet_osasis.errors import OsasisError
    from nnunet_osasis.runtime.records import atomic_write_json, read_json

    began, out = time.monotonic(), args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for name in ("raw", "preprocessed", "results"):  # nnU-Net reads them when it is imported
        (out / "work" / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(out / "work" / name)
    os.environ |= {"nnUNet_compile": "f", "nnUNet_n_proc_DA": "0"}
    chosen = [step for step in STEPS if args.steps is None or step.name.split(".")[1] in args.steps]
    scale = args.minutes * 60 / sum(step.share for step in chosen)
    settings = {"device": args.device, "tiny": args.tiny}
    results: dict[str, Any] = {"settings": settings, "machine": {}, "runs": [], "steps": {}}
    if (out / RESULTS).is_file():
        results = read_json(out / RESULTS, what="The results")
        if results["settings"] != settings:
            raise OsasisError(
                "A folder of results is of one device and scale",
                found=results["settings"],
                remedy="Choose another --out.",
            )
    print(f"Plan, {args.minutes:g} minutes on {args.device}{', tiny' if args.tiny else ''}, into {out}:")
    for number, step in enumerate(chosen, 1):
        done = "done" if results["steps"].get(step.name, {}).get("status") == "done" else f"{step.share * scale:.0f} s"
        print(f"  {number}. {step.title}: {done}", flush=True)
    results["runs"].append({"argv": sys.argv[1:], "minutes": args.minutes, "started": round(time.time())})
    multiprocessing.get_context("forkserver").set_forkserver_preload([] if args.tiny else PRELOAD)
    ends = began + args.minutes * 60
    for index, step in enumerate(chosen):
        if results["steps"].get(step.name, {}).get("status") == "done":
            continue
        later = sum(other.share for other in chosen[index + 1 :]) * scale
        left = ends - time.monotonic()
        # The later steps keep their shares; what is left over by the earlier ones is this one's.
        seconds = min(left, max(step.share * scale, left - later))
        least = 0 if args.tiny else step.least
        if seconds < max(least, 1):
            entry: dict[str, Any] = {"status": "skipped", "why": f"needs {least} s, {max(0, left):.0f} s were left"}
        else:
            entry = one_step(step, args, out, seconds)
        results["steps"][step.name] = {"title": step.title, **entry}
        results["machine"] = results["machine"] or entry.pop("machine", {})
        atomic_write_json(out / RESULTS, results)
        print(f"{step.title}: {entry['status']}, {time.monotonic() - began:.0f} s after the start", flush=True)
    print(f"Results: {out / RESULTS}; tables: python {HERE.name}/run.py --table {out / RESULTS}")
    return int(any(step["status"] == "failed" for step in results["steps"].values()))


def one_step(step: Step, args: argparse.Namespace, out: Path, seconds: float) -> dict[str, Any]:
    """Run a step in a process group of its own; end the group when its time is over."""
    from nnunet_osasis.runtime.records import read_json

    path = out / "steps" / f"{step.name}.json"
    status, began = out / "steps" / f"{step.name}.status.json", time.monotonic()
    status.unlink(missing_ok=True)
    data = args.data.resolve() if args.data else None
    context: Any = multiprocessing.get_context("spawn" if step.spawned else "forkserver")
    process = context.Process(target=child, args=(step.name, path, status, args.device, args.tiny, seconds, data, out))
    process.start()
    process.join(seconds)
    entry: dict[str, Any] = {"status": "failed", "why": f"ended with {process.exitcode}"}
    if process.is_alive():
        entry = {"status": "stopped", "why": f"its {seconds:.0f} s were over"}
    elif status.is_file():
        entry = read_json(status, what="A step's status")
    with contextlib.suppress(ProcessLookupError):  # also what the step started itself
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # if its time was over before it had a group of its own
    process.join()
    found = read_json(path, what="A step's entries") if path.is_file() else {}
    problems = [name for name, one in found.items() if isinstance(one, dict) and {"error", "skipped"} & set(one)]
    if entry["status"] == "done" and problems:
        failed = [name for name in problems if "error" in found[name]]
        why = f"entries without a result: {', '.join(problems)}"
        entry |= {"status": "failed" if failed else "stopped", "why": why}
    return entry | {"seconds": round(time.monotonic() - began, 1), "entries": found}


def child(
    name: str, path: Path, status: Path, device: str, tiny: bool, seconds: float, data: Path | None, out: Path
) -> None:
    """The process of a step: its function with a book, then how it ended."""
    os.setsid()
    deadline = time.monotonic() + seconds
    import importlib
    import traceback

    import torch
    from book import Book
    from timing import machine

    from nnunet_osasis.runtime.records import atomic_write_json

    if tiny:
        torch.set_num_threads(1)
    module, function = name.split(".")
    path.parent.mkdir(parents=True, exist_ok=True)
    work = out / "work" / function
    work.mkdir(parents=True, exist_ok=True)
    entry: dict[str, Any] = {"status": "done", "machine": machine()}
    try:
        step: Callable[[Book], None] = getattr(importlib.import_module(module), function)
        step(Book(path, device, tiny, deadline, data, work))
    except Exception as error:
        entry |= {"status": "failed", "why": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    atomic_write_json(status, entry)


if __name__ == "__main__":
    sys.exit(main())
