"""PraNet and UNet++ inside nnU-Net on real colonoscopy: that they train, with and without stylized images.

    python benchmarks/networks/run.py --workspace /tmp/polyp/demo --output benchmarks/networks

Takes the workspace that benchmarks/polyp/run.py leaves (dataset, plans, stylizer, test images; ClinicDB to ColonDB)
and runs `nnUNetv2_train 501 2d_demo 0 -tr ..._5epochs` and `nnUNetv2_predict` for four trainers, two side by side. The
U-Net's predictions of that benchmark are scored beside them. One seed and one short training each: it says nothing
about which is better.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

import nnunet_osasis
from nnunet_osasis.evaluation.metrics import score_case
from nnunet_osasis.evaluation.report.statistics import paired_difference
from nnunet_osasis.nnunet.raw_dataset import read_masks
from nnunet_osasis.runtime.children import child_command
from nnunet_osasis.runtime.records import atomic_write_json, read_json

TRAINERS = ("PraNet", "OSASISPraNet", "UNetPlusPlus", "OSASISUNetPlusPlus")
DATASET = "Dataset501_OsasisDemoSource"


def run(workspace: Path, length: str, trainer: str) -> dict[str, float]:
    """Train and predict with one trainer unless that is done; seconds of what was run."""
    names = {f"nnUNet_{n}": str(workspace / f"nnUNet_{n}") for n in ("raw", "preprocessed", "results")}
    environment = {**os.environ, **names, "nnUNet_compile": "f", "nnUNet_n_proc_DA": "1", "OMP_NUM_THREADS": "1"}
    name = f"nnUNetTrainer{trainer}_{length}"
    fold = workspace / "nnUNet_results" / DATASET / f"{name}__nnUNetPlans__2d_demo/fold_0"
    predictions = workspace / "predictions" / trainer
    common = ["-d", "501", "-c", "2d_demo", "-f", "0", "-tr", name, "-device", "cpu"]
    commands = {
        "train": ["nnUNetv2_train", "501", "2d_demo", "0", "-tr", name, "-device", "cpu"],
        "predict": ["nnUNetv2_predict", "-i", str(workspace / "data/test_images"), "-o", str(predictions), *common],
    }
    commands["predict"] += ["-npp", "1", "-nps", "1"]
    done = {"train": fold / "validation/summary.json", "predict": predictions / "plans.json"}
    seconds = {}
    for step, command in commands.items():
        if done[step].exists():
            continue
        print("$", " ".join(command), flush=True)
        began = time.perf_counter()
        with (workspace / f"logs/{step}_{trainer}.log").open("w") as log:
            subprocess.run(
                child_command(f"@{command[0]}", *command[1:], one_core=True), check=True,
                env=environment, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        seconds[step] = time.perf_counter() - began
    return seconds


def main() -> None:
    """Run what is missing, score, write results.json and report.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--length", default="5epochs")
    args = parser.parse_args()
    workspace = args.workspace.resolve()
    with ThreadPoolExecutor(2) as pool:
        spent_now = dict(zip(TRAINERS, pool.map(lambda t: run(workspace, args.length, t), TRAINERS), strict=True))
    earlier = args.output / "results.json"  # steps done in an earlier call keep their seconds
    known = read_json(earlier, what="The earlier results")["seconds"] if earlier.is_file() else {}
    seconds = {name: {**known.get(name, {}), **now} for name, now in spent_now.items()}
    masks = read_masks(workspace / "data/test_masks")
    rows, lines = [], ["| network | ClinicDB 504-612 | ColonDB | seconds to train |", "|---|---|---|---|"]
    for label, folder in (("U-Net", "none_0"), ("U-Net, OSASIS", "osasis_0"), *((t, t) for t in TRAINERS)):
        found = read_masks(workspace / "predictions" / folder)
        mine = [
            {"network": label, "case": c, **score_case(found[c] > 0, mask, metrics=("dice",))}
            for c, mask in masks.items()
        ]
        rows += mine
        means = [np.mean([r["dice"] for r in mine if r["case"].startswith(d)]) for d in ("source", "target")]
        spent = seconds.get(label, {}).get("train")
        lines.append(f"| {label} | {means[0]:.3f} | {means[1]:.3f} | {f'{spent:.0f}' if spent else ''} |")
    lines += ["", "| with OSASIS minus without, ColonDB | difference | 95 % interval over cases |", "|---|---|---|"]
    for label, plain, stylized in (
        ("U-Net", "U-Net", "U-Net, OSASIS"),
        ("PraNet", "PraNet", "OSASISPraNet"),
        ("UNet++", "UNetPlusPlus", "OSASISUNetPlusPlus"),
    ):
        scores = [
            np.array([[r["dice"] for r in rows if r["network"] == n and r["case"].startswith("target")]])
            for n in (stylized, plain)
        ]
        found = paired_difference(*scores)
        lines.append(f"| {label} | {found['mean']:+.3f} | {found['low']:+.3f} to {found['high']:+.3f} |")
    results = {
        "versions": {"nnunet_osasis": nnunet_osasis.__version__, "torch": torch.__version__},
        "machine": {
            "platform": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "device": "cpu, one core per training",
        },
        "length": args.length,
        "imagenet_weights": "none on the machine",
        "seconds": seconds,
        "cases": rows,
    }
    atomic_write_json(args.output / "results.json", results)
    text = [
        "# Networks on real images",
        "",
        "Mean Dice, one training each, five short epochs, PraNet without ImageNet weights.",
        "",
    ]
    (args.output / "report.md").write_text("\n".join([*text, *lines]) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
