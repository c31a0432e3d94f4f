"""What processes of their own do in the tests of parts; importable there by name."""

from __future__ import annotations

import json
import os
import signal
import time
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnunet_osasis.runtime.distributed import Shard
from nnunet_osasis.stylizer.archive.run import stylize_folder
from nnunet_osasis.stylizer.stylizer import OSASISStylizer


def stylize_part(
    stylizer: Path, source: Path, output: Path, index: int, count: int, killed_at: int, meeting: int
) -> None:
    """Make one share. ``killed_at``: the image during which the process kills itself (-1: none). ``meeting``: wait at
    the first image until so many parts are at work, so that they are at once."""
    loaded, real = OSASISStylizer.from_pretrained(stylizer), OSASISStylizer.stylize_array
    calls: list[int] = []

    def stylize_array(array: np.ndarray, **options: Any) -> np.ndarray:
        if not calls:
            (output.parent / f"arrived-{index}").touch()
            until = time.monotonic() + 60
            while len(list(output.parent.glob("arrived-*"))) < meeting and time.monotonic() < until:
                time.sleep(0.01)
            assert len(list(output.parent.glob("arrived-*"))) >= meeting, "the parts were not at work at once"
        if len(calls) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        calls.append(1)
        return real(loaded, array, **options)

    loaded.stylize_array = stylize_array  # type: ignore[method-assign]
    stylize_folder(loaded, source, output, share=Shard(index, count), progress=False)


def run_parts(
    context: ForkServerContext, stylizer: Path, source: Path, output: Path, count: int, *, killed: dict[int, int]
) -> list[int | None]:
    """All shares at once, each in a process; their exit codes."""
    processes: list[ForkServerProcess] = []
    for index in range(count):
        arguments = (stylizer, source, output, index, count, killed.get(index, -1), count)
        processes.append(context.Process(target=stylize_part, args=arguments))
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def write_images(folder: Path, count: int, side: int = 32) -> Path:
    """``count`` smooth coloured PNG images, all different."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[0:side, 0:side]
    for i in range(count):
        planes = [128 + 90 * np.sin((x + i) / 5 + c) + 20 * np.cos((y * (1 + i % 3)) / 4) for c in range(3)]
        Image.fromarray(np.clip(np.stack(planes, -1), 1, 254).astype(np.uint8)).save(folder / f"image {i:04d}.png")
    return folder


def contents(output: Path) -> dict[str, Any]:
    """Bytes of every file that is left, by name; locks left out, of the audit each case's lines without times."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in output.rglob("*") if p.is_file() and ".lock" not in p.name):
        if path.name == "audit.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[path.name] = sorted(({**row, "time": ""} for row in rows), key=lambda row: row["case"])
        else:
            found[str(path.relative_to(output))] = path.read_bytes()
    return found
