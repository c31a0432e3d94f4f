"""Scaling over processes: pretraining on one and on two CPU processes with the same batch and the same threads in all.

One process with ``--threads`` threads against two with half of them each; runs alternate. On a machine with two cores
this shows what sharing a step costs, not what more machines bring: all of it runs on the same cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import timing
import torch

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.runtime.distributed import current, joined
from nnunet_osasis.runtime.records import atomic_write_json, override, read_json
from nnunet_osasis.training.presets import get_preset
from nnunet_osasis.training.pretrain import PretrainSteps


def work(output: Path, threads: int, batch: int, steps: int) -> None:
    """One of the processes: seconds of each step after the first two, written by the main one."""
    torch.set_num_threads(threads)
    with joined("cpu"):
        preset = get_preset("tiny")
        preset = replace(preset, pretrain=override(preset.pretrain, batch_size=batch, precision="fp32"))
        torch.manual_seed(0)
        model = DiffusionAutoencoder(in_channels=3, **preset.model)
        size = model.config.sample_size
        training = PretrainSteps(model, torch.rand(32, 3, size, size) * 2 - 1, preset, "cpu")
        seconds = []
        for step in range(steps + 2):
            current().wait()
            began = time.perf_counter()
            training.step(training.draw(step), step)
            current().wait()
            seconds.append(time.perf_counter() - began)
        if current().is_main:
            atomic_write_json(output, {"seconds": seconds[2:]})


def run(count: int, threads: int, batch: int, steps: int) -> list[float]:
    """Seconds of the steps with ``count`` processes, as accelerate starts them."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "seconds.json"
        mine = [__file__, "--work", str(output), "--threads", str(threads // count)]
        mine += ["--batch", str(batch), "--steps", str(steps)]
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(count)]
        launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        command = [sys.executable, *mine] if count == 1 else [*launcher, "--main_process_port", "0", *mine]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads // count)}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return read_json(output, what="The measurement")["seconds"]


def main() -> None:
    """Alternate, then compare."""
    parser = timing.parser_of(__doc__, "processes.json")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="be one of the processes, and write the seconds here")
    args = parser.parse_args()
    if args.work:
        work(args.work, args.threads, args.batch, args.steps)
        return
    seconds: dict[str, list[float]] = {"one process": [], "two processes": []}
    for _ in range(args.rounds):
        for count, name in enumerate(seconds, start=1):
            seconds[name] += run(count, args.threads, args.batch, args.steps)
    times = {name: timing.summary(values) for name, values in seconds.items()}
    result = {
        "stage": "pretraining, tiny, fp32", "batch_of_all_processes": args.batch, "threads_of_all": args.threads,
        "warm_ups": 2, "seconds_a_step": times, "times_faster": timing.ratios(times, "one process"),
    }  # fmt: skip
    timing.write(args.output, result, f"python benchmarks/speed/{Path(__file__).name} {' '.join(sys.argv[1:])}".strip())


if __name__ == "__main__":
    main()
