"""Volumes end to end: a 3d_fullres nnU-Net run on an MR-like phantom, and how much stylized volumes flicker.

    python benchmarks/volumes/run.py --work /tmp/volumes --output benchmarks/volumes

1. Writes an nnU-Net dataset of phantom volumes of scanner A, and test volumes and one reference of scanner B.
2. Runs, with public commands only: plan and preprocess, osasis-pretrain-stylizer, nnUNetv2_train with
   nnUNetTrainerOSASIS_5epochs, nnUNetv2_predict (a smaller network and patch than planned, to fit two CPU cores).
3. Stylizes unseen volumes as a whole and slice by slice, with every read-out, and compares both with the true volumes
   of scanner B. One gain and one offset per volume, fitted to the truth, are taken out first: units are the business of
   nnU-Net's normalization, and an overall error of contrast is no flicker. In percent of the truth's 99.5th percentile:
   - flicker: the mean brightness of the body in a slice, minus the true one; mean absolute difference of neighbours.
     A smooth error of shading counts little, a slice that is brighter than its neighbours counts fully;
   - voxel jumps: mean absolute difference of neighbouring slices, voxel by voxel, minus the same of the true volume.
     What is left of contrast errors counts too, so it can be negative (flatter than the truth);
   - error: mean absolute difference to the truth.

Finished steps are kept: the same command continues.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

import nnunet_osasis
from nnunet_osasis import OSASISStylizer
from nnunet_osasis.runtime.children import child_command
from nnunet_osasis.runtime.records import atomic_write_json, read_json
from nnunet_osasis.stylizer.readouts import READOUTS
from nnunet_osasis.synthetic.phantom.scanner import acquire_pair

DATASET = "Dataset590_OsasisPhantomVolumes"
SHAPE, SPACING = (20, 80, 80), (4.0, 1.0, 1.0)
TRAIN, TEST, REFERENCE = range(12), range(1000, 1006), 2000
FLICKER = TEST[:3]
MEASURES = ("flicker", "voxel jumps", "error")
SHOWN = tuple(readout for readout in READOUTS if readout not in ("raw", "student"))
"""``raw`` is ``local_affine`` at other sizes than its own, and no student is trained here."""
NETWORK = {"n_stages": 4, "features_per_stage": [8, 16, 32, 64]}
PATCH = [16, 64, 64]


def write(path: Path, volume: np.ndarray) -> Path:
    """One ``(D, H, W)`` volume as NIfTI with the phantom's spacing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(SPACING[::-1])
    sitk.WriteImage(image, path)
    return path


def write_data(work: Path, channels: int) -> Path:
    """The dataset of scanner A, test images of scanner B; returns the reference's path (its first channel)."""
    raw = work / "raw" / DATASET
    for seed in TRAIN:
        volume, _, mask, _ = acquire_pair(seed, channels, shape=SHAPE, spacing=SPACING)
        for c in range(channels):
            write(raw / f"imagesTr/body_{seed:04d}_{c:04d}.nii.gz", volume[c])
        write(raw / f"labelsTr/body_{seed:04d}.nii.gz", mask)
    for seed in TEST:
        _, volume, mask, _ = acquire_pair(seed, channels, shape=SHAPE, spacing=SPACING)
        for c in range(channels):
            write(work / f"imagesTs/body_{seed:04d}_{c:04d}.nii.gz", volume[c])
        write(work / f"labelsTs/body_{seed:04d}.nii.gz", mask)
    names = {str(c): name for c, name in enumerate(("T1", "T2", "PD", "FLAIR")[:channels])}
    content = {"channel_names": names, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps({**content, "numTraining": len(TRAIN)}))
    _, reference, _, _ = acquire_pair(REFERENCE, channels, shape=SHAPE, spacing=SPACING)
    for c in range(channels):
        write(work / f"reference/new_{c:04d}.nii.gz", reference[c])
    return work / "reference/new_0000.nii.gz"


def shrink_plans(path: Path) -> None:
    """A network and a patch that two CPU cores can train in minutes."""
    plans = read_json(path, what="nnU-Net's plans")
    configuration = plans["configurations"]["3d_fullres"]
    kwargs = configuration["architecture"]["arch_kwargs"]
    for key in ("kernel_sizes", "strides", "n_conv_per_stage"):
        kwargs[key] = kwargs[key][: NETWORK["n_stages"]]
    kwargs["n_conv_per_stage_decoder"] = kwargs["n_conv_per_stage_decoder"][: NETWORK["n_stages"] - 1]
    kwargs.update(NETWORK)
    configuration.update(patch_size=PATCH, batch_size=2)
    atomic_write_json(path, plans)


def run(*command: str, done: Path, environment: dict[str, str]) -> float:
    """Run a command of this interpreter's environment unless ``done`` exists; its seconds, 0 when skipped."""
    print("$", shlex.join(command), flush=True)
    if done.exists():
        return 0.0
    began = time.perf_counter()
    # One core for nnU-Net: on a busy machine its threads wait for each other.
    child = child_command(f"@{command[0]}", *command[1:], one_core=command[0].startswith("nnUNet"))
    subprocess.run(child, check=True, env={**os.environ, **environment})
    return time.perf_counter() - began


def end_to_end(work: Path, reference: Path, iterations: str) -> dict:
    """Plan, pretrain, train, predict; seconds per step and Dice of the lesions on scanner B."""
    environment = {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")}
    environment |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
    preprocessed = work / "preprocessed" / DATASET
    seconds = {}
    plans = preprocessed / "nnUNetPlans.json"
    seconds["plan_and_preprocess"] = run(
        "nnUNetv2_plan_and_preprocess", "-d", "590", "-c", "3d_fullres", "-npfp", "1", "-np", "1",
        done=preprocessed / "gt_segmentations/body_0011.nii.gz", environment=environment,
    )  # fmt: skip
    shrink_plans(plans)
    stylizer = work / "stylizer"
    seconds["osasis_pretrain_stylizer"] = run(
        "osasis-pretrain-stylizer", "-d", "590", "-c", "3d_fullres", "-f", "0", "--style", str(reference),
        "--output", str(stylizer), "--iterations", iterations, "-device", "cpu", "--resume",
        done=stylizer / "stylizer.json", environment=environment,
    )  # fmt: skip
    values = read_json(plans, what="nnU-Net's plans")
    values["configurations"]["3d_fullres"]["osasis"] = {"stylizer": str(stylizer), "probability": 0.5}
    atomic_write_json(plans, values)
    model = work / "results" / DATASET / "nnUNetTrainerOSASIS_5epochs__nnUNetPlans__3d_fullres"
    seconds["nnUNetv2_train"] = run(
        "nnUNetv2_train", "590", "3d_fullres", "0", "-tr", "nnUNetTrainerOSASIS_5epochs", "-device", "cpu",
        done=model / "fold_0/validation/summary.json", environment=environment,
    )  # fmt: skip
    predictions = work / "predictions"
    seconds["nnUNetv2_predict"] = run(
        "nnUNetv2_predict", "-i", str(work / "imagesTs"), "-o", str(predictions), "-d", "590", "-c", "3d_fullres",
        "-f", "0", "-tr", "nnUNetTrainerOSASIS_5epochs", "-device", "cpu", "-npp", "1", "-nps", "1",
        "--disable_tta", done=predictions / f"body_{TEST[-1]:04d}.nii.gz", environment=environment,
    )  # fmt: skip
    summary = read_json(model / "fold_0/validation/summary.json", what="nnU-Net's summary")
    dice = []
    for path in sorted((work / "labelsTs").iterdir()):
        truth, found = (sitk.GetArrayFromImage(sitk.ReadImage(p)) for p in (path, predictions / path.name))
        dice.append(2 * float((truth * found).sum()) / float(truth.sum() + found.sum()))
    return {
        "seconds": seconds,
        "validation_dice_scanner_a": summary["foreground_mean"]["Dice"],
        "dice_scanner_b": dice,
    }


def measures(volume: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Flicker, voxel jumps and error of volumes ``(C, D, H, W)``, averaged over channels."""
    rows = []
    for found, true in zip(volume.astype(np.float64), truth.astype(np.float64), strict=True):
        scale = np.percentile(true, 99.5)
        design = np.stack([found.ravel(), np.ones(found.size)], axis=1)
        gain, offset = np.linalg.lstsq(design, true.ravel(), rcond=None)[0]
        aligned, body = found * gain + offset, true > 0.08 * scale
        brightness = [(a - t)[b].mean() for a, t, b in zip(aligned, true, body, strict=True) if b.any()]
        jumps = [np.abs(np.diff(v, axis=0)).mean() for v in (aligned, true)]
        values = np.abs(np.diff(brightness)).mean(), jumps[0] - jumps[1], np.abs(aligned - true).mean()
        rows.append(100 * np.array(values) / scale)
    return dict(zip(MEASURES, np.mean(rows, axis=0).tolist(), strict=True))


def measure(stylizer: OSASISStylizer, channels: int) -> list[dict]:
    """One row per volume, read-out and way."""
    rows = []
    for seed in FLICKER:
        for noise in (True, False):
            source, truth, _, _ = acquire_pair(seed, channels, noise=noise, shape=SHAPE, spacing=SPACING)
            results = {("source", ""): source}
            for readout in SHOWN:
                one = stylizer.configured(readout=readout)
                results[readout, "volume"] = one.stylize_array(source)
                slices = [one.stylize_array(source[:, z]) for z in range(source.shape[1])]
                results[readout, "slices alone"] = np.stack(slices, axis=1)
            for (readout, way), found in results.items():
                rows.append({"seed": seed, "noise": noise, "readout": readout, "way": way, **measures(found, truth)})
    return rows


def table(rows: list[dict], *, noise: bool) -> list[str]:
    """Means over volumes, as Markdown."""
    heads = [f"{measure}, {way}" for measure in MEASURES for way in ("volume", "slices alone")]
    lines = ["| read-out | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for readout in ("source", *SHOWN):
        cells = []
        for key in MEASURES:
            for way in ("volume", "slices alone") if readout in SHOWN else ("", ""):
                chosen = [r[key] for r in rows if (r["readout"], r["way"], r["noise"]) == (readout, way, noise)]
                cells.append(f"{np.mean(chosen):.3f}")
        lines.append(f"| {readout} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """All steps; writes results.json and report.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--iterations", default="600", help="pretraining steps of the stylizer (tiny preset)")
    parser.add_argument("--channels", type=int, default=1)
    args = parser.parse_args()
    work = args.work.resolve()
    reference = write_data(work, args.channels)
    run_figures = end_to_end(work, reference, args.iterations)
    began = time.perf_counter()
    rows = measure(OSASISStylizer.from_pretrained(work / "stylizer"), args.channels)
    run_figures["seconds"]["flicker"] = time.perf_counter() - began
    results = {
        "versions": {"nnunet_osasis": nnunet_osasis.__version__, "torch": torch.__version__, "numpy": np.__version__},
        "machine": {"platform": f"{platform.system()} {platform.machine()}", "cpus": os.cpu_count(), "device": "cpu"},
        "settings": {"iterations": int(args.iterations), "channels": args.channels, "shape": SHAPE, "spacing": SPACING},
        "end_to_end": run_figures,
        "flicker": rows,
    }
    atomic_write_json(args.output / "results.json", results)
    lines = [
        "# Volumes",
        "",
        "Means over three unseen phantom volumes; percent of the true volume's 99.5th percentile.",
        "",
    ]
    for noise in (True, False):
        lines += [f"## {'With' if noise else 'Without'} scanner noise", "", *table(rows, noise=noise), ""]
    (args.output / "report.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
