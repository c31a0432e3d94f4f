"""Kill every long command with SIGKILL at random moments, go on, and compare the result with an uninterrupted run.

    python benchmarks/durability/kills.py --kills 6 --seed 0 --output results/kills.json

Every command works on made-up images in a temporary folder. It is run once to its end; then it is started, killed
after a random part of that time, looked at (is every file whole?), started again, killed again, and so on; at last it
is run to its end. Imports are done before the clock starts, in the process that the commands are forked from.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from commands import LONG_COMMANDS, LongCommand, make_data, shrink
from compare import contents, torn_files

from nnunet_osasis.runtime.provenance import machine
from nnunet_osasis.runtime.records import atomic_write_json, read_json

IMPORTED = (
    "monai.inferers",
    "nnunetv2.training.dataloading.nnunet_dataset",
    "nnunet_osasis.stylizer.stylizer",
    "nnunet_osasis.training.build",
    "nnunet_osasis.nnunet.cache",
    "nnunet_osasis.evaluation.experiment.runner",
    "nnunet_osasis.evaluation.metrics.results",
)
"""What takes seconds to import: done once, so that kills meet the work and not the imports."""
MOST_RUNS = 6
"""Starts per kill, at most: a command may end before its kill comes, and is then compared and begun anew."""


def start(command: LongCommand, data: Path, output: Path, log: Path) -> int:
    """Run a command in a forked process of its own group; returns its number."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.setpgid(0, 0)
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        command.run(data, output)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(process: int, seconds: float | None) -> int | None:
    """The exit status once it has ended; None when it still runs after ``seconds``."""
    began = time.monotonic()
    while seconds is None or time.monotonic() - began < seconds:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def group_ends(group: int, *, seconds: float = 30.0) -> bool:
    """Whether every process of a group is gone within ``seconds``; those that are not are killed."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    os.killpg(group, signal.SIGKILL)
    return False


def to_end(command: LongCommand, data: Path, output: Path, log: Path) -> float:
    """Run a command to its end; returns its seconds."""
    began = time.monotonic()
    status = wait(start(command, data, output, log), None)
    if status != 0:
        raise SystemExit(f"{command.name} ended with {status}; the end of its log:\n{log.read_text()[-3000:]}")
    return time.monotonic() - began


def kill_often(command: LongCommand, data: Path, root: Path, kills: int, rng: random.Random) -> dict[str, Any]:
    """Kill a command ``kills`` times in chains, run each chain to its end, compare."""
    log, output = root / "log.txt", root / "killed"
    seconds = to_end(command, data, root / "whole", log)
    expected = contents(root / "whole", command.left_out)
    moments, opened, problems, chains, runs = list[float](), 0, list[str](), 0, 1

    def compare() -> None:
        nonlocal chains
        found = contents(output, command.left_out)
        problems.extend(f"differs: {name}" for name in sorted(expected.keys() | found.keys())
                        if expected.get(name) != found.get(name))  # fmt: skip
        problems.extend(f"left behind: {p.name}" for p in output.rglob(".osasis-*"))
        chains += 1
        shutil.rmtree(output)

    while len(moments) < kills and runs < MOST_RUNS * kills:
        moment = rng.uniform(0.01, 0.95) * seconds
        process = start(command, data, output, log)
        runs += 1
        status = wait(process, moment)
        if status is None:
            os.kill(process, signal.SIGKILL)  # it alone: its workers have to notice
            os.waitpid(process, 0)
            if not group_ends(process):
                problems.append("workers lived on after the command was killed")
            moments.append(round(moment / seconds, 3))
            count, torn = torn_files(output)
            opened += count
            problems.extend(f"torn after a kill: {name}" for name in torn)
        elif status != 0:
            problems.append(f"ended with {status} after a kill: {log.read_text()[-400:]}")
            shutil.rmtree(output, ignore_errors=True)
        else:
            compare()
    if output.exists():
        to_end(command, data, output, log)
        compare()
    return {
        "command": command.name,
        "kills": len(moments),
        "killed_after_share_of_the_run": moments,
        "chains_compared": chains,
        "files_compared": len(expected),
        "files_opened_after_kills": opened,
        "left_out": command.left_out,
        "seconds_uninterrupted": round(seconds, 2),
        "problems": sorted(set(problems)),
    }


def keep(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the results so far; those of commands that are not run this time stay."""
    known = read_json(path, what="The results")["commands"] if path.is_file() else []
    names = [command.name for command in LONG_COMMANDS]
    whole = [row for row in known if row["command"] not in [new["command"] for new in rows]] + rows
    result = {
        "kills": sum(row["kills"] for row in whole),
        "problems": sum(len(row["problems"]) for row in whole),
        "machine": machine(),
        "commands": sorted(whole, key=lambda row: names.index(row["command"])),
    }
    atomic_write_json(path, result)


def main() -> None:
    """Kill, compare, write the JSON; ends with status 1 when anything differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=6, help="of every command (default: 6)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[c.name for c in LONG_COMMANDS])
    parser.add_argument("--output", type=Path, help="JSON file for the counts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for module in IMPORTED:
        importlib.import_module(module)
    shrink()
    rng, rows = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as root:
        data = Path(root) / "data"
        data.mkdir()
        chosen = [command for command in LONG_COMMANDS if args.only is None or command.name in args.only]
        needs = {need for command in chosen for need in command.needs}
        making = LongCommand("the making of the data", lambda folder, _: make_data(folder, needs))
        to_end(making, data, data, Path(root) / "log.txt")
        for command in chosen:
            place = Path(root) / command.name.replace(" ", "_")
            place.mkdir()
            rows.append(kill_often(command, data, place, args.kills, rng))
            rows[-1]["seed"] = args.seed
            shutil.rmtree(place)
            if args.output is not None:
                keep(args.output, rows)
            shown = {key: rows[-1][key] for key in ("command", "kills", "chains_compared", "files_opened_after_kills")}
            print(shown, rows[-1]["problems"] or "no problem", flush=True)
    problems = sum(len(row["problems"]) for row in rows)
    print(f"{sum(row['kills'] for row in rows)} kills, {problems} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
