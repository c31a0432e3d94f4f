"""One pass (student and map) against the teacher and the free controls, per image of 256 and 1024 px.

    python benchmarks/speed/student.py --stylizer STYLIZER

The teacher is the read-out ``local_affine`` on the stylizer's own grid of steps. Every call gets a picture it has not
seen, so that nothing kept from an earlier call helps. A stylizer without a student is given an untrained one of the
default shape: its time is the same. Also: weights, and the operations and bytes of one pass as PyTorch's operators do
them one after the other, which a compiler that joins them would lower. ONNX Runtime where it is installed.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import measure, parser_of, ratios, write
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from nnunet_osasis.controls import FourierDomainAdaptation, HistogramMatching, PooledReinhard, Reinhard
from nnunet_osasis.stylizer.names import STUDENT
from nnunet_osasis.stylizer.one_pass import OnePass
from nnunet_osasis.stylizer.student import LARGEST, Student
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.training.distil import DistilConfig

SIZES = (256, 1024)
VIEWS = ("view", "expand", "permute", "transpose", "slice", "select", "split", "unsqueeze", "squeeze", "detach", "t.")


class Traffic(TorchDispatchMode):
    """Bytes that operators read and write, and numbers that operators other than matrix products make."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.elementwise = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = str(func).removeprefix("aten.")
        if not name.startswith(VIEWS):
            tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
            self.bytes += sum(x.numel() * x.element_size() for x in tensors)
            if not any(part in name for part in ("mm", "conv", "cat", "copy")):
                self.elementwise += sum(x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor))
        return result


def scene(side: int, seed: int) -> torch.Tensor:
    """Smooth noise in [-1, 1], ``(1, 3, S, S)``."""
    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise * 0.4, size=(side, side), mode="bicubic").clamp(-1, 1)


def cost(module: OnePass, side: int) -> dict[str, float]:
    """Operations and bytes of one image."""
    images, strength, traffic = scene(side, 0), torch.ones(1), Traffic()
    with torch.inference_mode(), FlopCounterMode(display=False) as flops:
        module(images, strength)
    with torch.inference_mode(), traffic:
        module(images, strength)
    image = images.numel() * 4
    return {
        "gflop_matrix_products": round(flops.get_total_flops() / 1e9, 4),
        "gflop_elementwise": round(traffic.elementwise / 1e9, 4),
        "megabytes_moved": round(traffic.bytes / 1e6, 2),
        "megabytes_read_and_written_at_least": round(2 * image / 1e6, 2),
    }


def runtime(module: OnePass, stylizer: OSASISStylizer, readout: str, threads: int) -> Callable[[torch.Tensor], object]:
    """The exported file in ONNX Runtime."""
    import onnxruntime

    from nnunet_osasis.stylizer.onnx import export_one_pass

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one_pass.onnx"
        export_one_pass(stylizer, path, readout=readout)
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    strength = np.ones(1, np.float32)
    return lambda image: session.run(None, {"image": image.numpy(), "strength": strength})


def tasks_for(
    stylizer: OSASISStylizer, passes: dict[str, Callable[[torch.Tensor], object]], side: int
) -> dict[str, Callable[[], object]]:
    """Every method on a new picture of ``side`` pixels a call."""
    seeds, reference = count(), stylizer.reference
    span = (0.0, 255.0)
    sources = [((scene(64, 1000 + i)[0].numpy() + 1) * 127.5) for i in range(4)]
    controls = {
        "histogram matching": HistogramMatching(reference, value_range=span),
        "Reinhard": Reinhard(reference, value_range=span),
        "pooled Reinhard": PooledReinhard.fit(sources, reference, value_range=span),
        "FDA": FourierDomainAdaptation(reference, value_range=span),
    }
    pool = [scene(side, next(seeds)) for _ in range(4)]
    arrays = [((image[0].numpy() + 1) * 127.5).astype(np.float32) for image in pool]
    turn = count()

    def fresh() -> torch.Tensor:
        return pool[next(turn) % len(pool)].roll(int(next(turn)), dims=-1)

    tasks: dict[str, Callable[[], object]] = {
        name: (lambda run=run: torch.inference_mode()(run)(fresh())) for name, run in passes.items()
    }
    tasks["teacher (local_affine)"] = lambda: stylizer.stylize(fresh(), readout="local_affine")
    for name, control in controls.items():
        tasks[name] = lambda control=control: control.stylize_array(
            np.roll(arrays[next(turn) % len(arrays)], int(next(turn)), axis=-1)
        )
    return tasks


def main() -> None:
    """Measure, count, write."""
    parser = parser_of(__doc__, "student.json")
    parser.add_argument("--stylizer", required=True)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stylizer = OSASISStylizer.from_pretrained(args.stylizer)
    trained = stylizer.student is not None
    if not trained:
        torch.manual_seed(0)
        shape = (stylizer.in_channels, min(LARGEST, stylizer.size), DistilConfig().width, "local_affine")
        stylizer.student = Student(*shape).eval().requires_grad_(False)
    modules = {"student": stylizer.one_pass(readout=STUDENT), "map": stylizer.one_pass()}
    strength = torch.ones(1)
    passes: dict[str, Callable] = {
        f"{name}, one pass": (lambda image, module=module: module(image, strength)) for name, module in modules.items()
    }
    if importlib.util.find_spec("onnxruntime") is not None:
        for name, readout in (("student", STUDENT), ("map", stylizer.config.readout)):
            passes[f"{name}, ONNX Runtime"] = runtime(modules[name], stylizer, readout, args.threads)
    seconds, costs = {}, {}
    for side in SIZES:
        seconds[side] = measure(tasks_for(stylizer, passes, side), rounds=args.rounds)
        costs[side] = {name: cost(module, side) for name, module in modules.items()}
        print(side, {name: round(1000 * one["median"], 1) for name, one in seconds[side].items()}, flush=True)
    weights = sum(parameter.numel() for parameter in stylizer.student.parameters())
    sampler = stylizer.config.sampler
    result = {
        "student": {"trained": trained, "parameters": weights, "megabytes": round(weights * 4 / 1e6, 2)},
        "map": stylizer.config.readout,
        "teacher": {"size": stylizer.size, "steps": [sampler.encode_steps, sampler.decode_steps]},
        "seconds_per_image": seconds,
        "times_faster_than_teacher": {side: ratios(one, "teacher (local_affine)") for side, one in seconds.items()},
        "cost_of_one_pass": costs,
    }
    write(args.output, result, " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]))


if __name__ == "__main__":
    main()
