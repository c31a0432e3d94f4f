"""``osasis-stylize`` on archives: images per second over processes, and cost per image against the archive's size.

    python benchmarks/speed/archive.py --stylizer DIR --output results/archive.json
    python benchmarks/speed/archive.py --stylizer DIR --images DIR --processes 1,2 --output results/archive.json

(f) The same folder is stylized from scratch by 1, 2 (and 4) processes at once into one output folder, as
``--num-parts`` and ``accelerate launch`` do, each process with its share of ``--threads``; numbers of processes take
turns in every round. Times are of the work: processes have imported and loaded when the clock starts, and it stops
when the last one has ended. With and without the structure gate. Then one process that reads and writes while it
computes, against one that does all of it in turn.

Last, tiny images, of which only reading, writing and the record cost anything: seconds per image of archives of growing
size, made from scratch and made again when all is there (a resumed run), beside one rewrite of the manifest (what
version 0.1 did for every image). Memory is the peak that Python's allocator and numpy saw.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shlex
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import measure, parser_of, ratios, summary, write

from nnunet_osasis.images.io import list_images
from nnunet_osasis.runtime.distributed import Shard
from nnunet_osasis.runtime.records import read_sealed_json, write_sealed_json
from nnunet_osasis.stylizer.archive import run as stylize_folder_module
from nnunet_osasis.stylizer.archive.record import MANIFEST
from nnunet_osasis.stylizer.archive.run import stylize_folder
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.synthetic.phantoms import render_pair, scene_seed


def worker(pipe: Connection, stylizer: str, readout: str | None, threads: int) -> None:
    """Load, then make the share of every order that comes, until there is none; says how many it made."""
    loaded = OSASISStylizer.from_pretrained(stylizer)
    loaded = loaded if readout is None else loaded.configured(readout=readout)
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        source, output, index, count, gated = order
        torch.set_num_threads(max(1, threads // count))
        pipe.send(stylize_folder(loaded, source, output, gated=gated, share=Shard(index, count), progress=False))


class Workers:
    """Processes that have everything loaded before a clock starts."""

    def __init__(self, count: int, stylizer: str, readout: str | None, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        pairs = [context.Pipe() for _ in range(count)]
        self.pipes = [here for here, _ in pairs]
        self.processes = [context.Process(target=worker, args=(p, stylizer, readout, threads)) for _, p in pairs]
        for process in self.processes:
            process.start()
        for pipe in self.pipes:
            pipe.recv()

    def make(self, source: Path, output: Path, count: int, gated: bool) -> int:
        """All images of ``source`` by ``count`` processes at once; how many they made together."""
        for index, pipe in enumerate(self.pipes[:count]):
            pipe.send((source, output, index, count, gated))
        return sum(pipe.recv() for pipe in self.pipes[:count])

    def end(self) -> None:
        """Let them go."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


def over_processes(args: argparse.Namespace, source: Path, root: Path) -> dict[str, Any]:
    """Images per second by number of processes, gated and not."""
    workers = Workers(max(args.processes), args.stylizer, args.readout, args.threads)
    images, runs, found = len(list_images(source)), iter(range(10**6)), {}

    def task(count: int, gated: bool) -> Callable[[], None]:
        def run() -> None:
            output = root / f"run {next(runs)}"
            if gated:  # its thresholds, which are measured once per folder if the stylizer has none
                shutil.copytree(root / "thresholds", output / "osasis_audit")
            if workers.make(source, output, count, gated) != images:
                raise SystemExit("Some images were left out or made twice.")

        return run

    workers.make(source, root / "first", 1, True)
    (root / "thresholds").mkdir()
    if (kept := root / "first/osasis_audit/gate.json").is_file():
        shutil.copy(kept, root / "thresholds")
    for gated in (True, False):
        tasks = {f"{count} process(es)": task(count, gated) for count in args.processes}
        times = measure(tasks, rounds=args.rounds, warm_ups=1)
        per_second = {name: float(f"{images / one['median']:.4g}") for name, one in times.items()}
        found["with the gate" if gated else "without the gate"] = {
            "seconds": times,
            "images_per_second": per_second,
            "times_faster_than_one_process": ratios(times, f"{args.processes[0]} process(es)"),
        }
    workers.end()
    each = {str(count): max(1, args.threads // count) for count in args.processes}
    return {"images": images, "threads_per_process": each, **found}


def with_overlap(args: argparse.Namespace, source: Path, root: Path) -> dict[str, Any]:
    """One process with one thread for the networks: reading and writing beside the work against one by one."""
    loaded = OSASISStylizer.from_pretrained(args.stylizer)
    loaded = loaded if args.readout is None else loaded.configured(readout=args.readout)
    is_large, runs = stylize_folder_module._is_large, iter(range(10**6))
    torch.set_num_threads(1)

    def task(overlapped: bool) -> Callable[[], None]:
        def run() -> None:
            stylize_folder_module._is_large = is_large if overlapped else lambda path: True
            stylize_folder(loaded, source, root / f"overlap {next(runs)}", gated=False, progress=False)

        return run

    times = measure({"one by one": task(False), "overlapped": task(True)}, rounds=args.rounds, warm_ups=1)
    stylize_folder_module._is_large = is_large
    torch.set_num_threads(args.threads)
    return {"seconds": times, "times_faster": ratios(times, "one by one")}


def over_sizes(args: argparse.Namespace, root: Path) -> list[dict[str, Any]]:
    """Seconds per image by number of images, networks left out."""
    stylizer = OSASISStylizer.from_pretrained(args.stylizer)
    stylizer.stylize_array = lambda array, **_: 255 - array.astype(np.float32)  # type: ignore[method-assign]
    folders = {count: root / f"tiny {count}" for count in args.sizes}
    rng = np.random.default_rng(0)
    for count, folder in folders.items():
        folder.mkdir()
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(folder / f"{i:06d}.png")
    rows: dict[int, dict[str, list[float]]] = {count: {"made": [], "resumed": [], "manifest": []} for count in folders}
    for turn in range(args.rounds_of_sizes):
        for count, folder in folders.items():
            output = root / f"made {turn} {count}"
            for name in ("made", "resumed"):
                began = time.perf_counter()
                stylize_folder(stylizer, folder, output, gated=False, progress=False)
                rows[count][name].append((time.perf_counter() - began) / count)
            manifest = read_sealed_json(output / MANIFEST, what="The manifest")
            began = time.perf_counter()
            write_sealed_json(root / "again.json", manifest)
            rows[count]["manifest"].append(time.perf_counter() - began)
            shutil.rmtree(output)
    return [
        {
            "images": count,
            "seconds_per_image": summary(row["made"]),
            "seconds_per_image_when_all_is_there": summary(row["resumed"]),
            "seconds_of_one_rewrite_of_the_manifest": summary(row["manifest"]),
            "peak_mib": peak(stylizer, folders[count], root / f"peak {count}"),
        }
        for count, row in rows.items()
    ]


def peak(stylizer: OSASISStylizer, source: Path, output: Path) -> float:
    """Most memory at once while a folder is stylized, in MiB."""
    tracemalloc.start()
    stylize_folder(stylizer, source, output, gated=False, progress=False)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round(most / 2**20, 2)


def numbers(text: str) -> list[int]:
    """``1,2,4``."""
    return [int(part) for part in text.split(",")]


def given(args: argparse.Namespace) -> list[str]:
    """The options that shape the result; folders are the user's own."""
    joined = {name: ",".join(map(str, getattr(args, name))) for name in ("processes", "sizes")}
    plain = {name: str(getattr(args, name)) for name in ("count", "threads", "rounds")}
    return [word for name, value in (joined | plain).items() for word in (f"--{name}", value)]


def main() -> None:
    """Measure and write."""
    parser = parser_of(__doc__, "archive.json")
    parser.add_argument("--stylizer", required=True)
    parser.add_argument("--images", type=Path, help="a folder of images; default: phantoms made here")
    parser.add_argument("--count", type=int, default=24, help="images of the first part")
    parser.add_argument("--side", type=int, default=384, help="of those phantoms")
    parser.add_argument("--readout", help="default: the stylizer's")
    parser.add_argument("--processes", type=numbers, default=[1, 2, 4])
    parser.add_argument("--sizes", type=numbers, default=[100, 1000, 4000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rounds-of-sizes", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = root / "images"
        source.mkdir()
        if args.images is None:
            for i in range(args.count):
                image, _, _ = render_pair(scene_seed("train", i), args.side)
                Image.fromarray(image).save(source / f"{i:04d}.png")
        else:
            for path in list_images(args.images)[: args.count]:
                shutil.copy(path, source)
        shape = list(np.asarray(Image.open(list_images(source)[0])).shape)
        readout = args.readout or OSASISStylizer.from_pretrained(args.stylizer).config.readout
        facts = {"readout": readout, "images": "phantoms" if args.images is None else "given", "shape": shape}
        torch.set_num_threads(args.threads)
        result = {**facts, "processes": over_processes(args, source, root)}
        result |= {"overlap": with_overlap(args, source, root), "sizes": over_sizes(args, root)}
    write(args.output, result, shlex.join(["python", "benchmarks/speed/archive.py", *given(args)]))


if __name__ == "__main__":
    main()
