"""Train here, export, and predict in a second environment that has nnU-Net and nothing of ours; compare every number.

``python benchmarks/compatibility/second_environment.py`` makes phantom images, a stylizer and short trainings of three
trainers, exports them, installs ``nnunetv2`` (with this environment's version of torch, for bits to be comparable)
into a fresh environment, and runs ``nnUNetv2_predict --save_probabilities`` there. UNet++ and PraNet go as TorchScript
through nnU-Net's own predictor. Needs a network, about 9 GB of disk and a quarter of an hour on two CPU cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
from environment import Environment
from PIL import Image
from residue import SHOW

ROOT = Path(__file__).resolve().parents[2]
PREDICTION = ROOT / "tests" / "export" / "plain_prediction.py"
DATASET = "Dataset990_SecondEnvironment"
PLAIN = ("nnUNetTrainerOSASIS", "nnUNetTrainerGIN")
SCRIPTED = ("nnUNetTrainerOSASISUNetPlusPlus", "nnUNetTrainerOSASISPraNet")
PREDICT = ["-i", "images", "-d", "990", "-c", "2d", "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1"]


def write_dataset(raw: Path) -> None:
    """Twelve phantom pictures, eight to train on, in nnU-Net's layout."""
    rng = np.random.default_rng(0)
    for case in range(12):
        yy, xx = np.mgrid[:160, :144]
        label = ((yy - 50 - 5 * case) ** 2 + (xx - 70) ** 2 < 900).astype(np.uint8)
        smooth = 90 + 30 * np.sin(xx / (20 + case))[..., None] * np.array([1.0, 0.6, 0.3])
        image = np.clip(smooth + 60 * label[..., None] + rng.normal(0, 12, (160, 144, 3)), 0, 255).astype(np.uint8)
        folder = "Tr" if case < 8 else "Ts"
        for name, array in (
            (f"images{folder}/case_{case}_0000.png", image),
            (f"labels{folder}/case_{case}.png", label),
        ):
            (raw / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(raw / name)
    content = {
        "channel_names": dict.fromkeys("012", "rgb_to_0_1"),
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 8,
        "file_ending": ".png",
    }
    (raw / "dataset.json").write_text(json.dumps(content))


def train(trainers: list[str], iterations: int) -> None:
    """One epoch of ``iterations`` each, as ``nnUNetv2_train`` does it, on a batch size for a CPU."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    folder = Path(os.environ["nnUNet_preprocessed"]) / DATASET
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["configurations"]["2d"] |= {"batch_size": 2, "osasis": {"probability": 0.5}}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    for name in trainers:
        trainer = get_trainer_from_args(DATASET, "2d", 0, name, device=torch.device("cpu"))
        trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, iterations, 1
        trainer.run_training()


def here(*command: str | Path) -> None:
    """A command of this environment, its output kept for the case that it fails."""
    program = Path(sys.executable).parent / str(command[0])
    subprocess.run([program, *map(str, command[1:])], check=True, capture_output=True, text=True)


def same_files(ours: Path, theirs: Path) -> dict:
    """Probabilities and label maps of two prediction folders, compared number by number."""
    found: dict = {"cases": 0, "probabilities_identical": True, "labels_identical": True, "max_abs_difference": 0.0}
    for path in sorted(ours.glob("*.npz")):
        a, b = (np.load(folder / path.name)["probabilities"] for folder in (ours, theirs))
        labels = [np.array(Image.open((folder / path.name).with_suffix(".png"))) for folder in (ours, theirs)]
        found["cases"] += 1
        found["probabilities_identical"] &= bool(np.array_equal(a, b))
        found["labels_identical"] &= bool(np.array_equal(*labels))
        found["max_abs_difference"] = max(found["max_abs_difference"], float(np.abs(a - b).max()))
        found["largest_spread_of_probabilities"] = float(np.ptp(a))
    return found


def same_arrays(ours: Path, theirs: Path) -> dict:
    """Logits and labels of ``plain_prediction.py``."""
    with np.load(ours) as a, np.load(theirs) as b:
        return {
            "logits_identical": bool(np.array_equal(a["logits"], b["logits"])),
            "labels_identical": bool(np.array_equal(a["labels"], b["labels"])),
            "max_abs_difference": float(np.abs(a["logits"] - b["logits"]).max()),
            "logits_sha256": hashlib.sha256(b["logits"].tobytes()).hexdigest(),
        }


def compare(work: Path, second: Environment) -> dict:
    """Predict in both environments with what is trained and exported in ``work``."""
    sys.path.insert(0, str(PREDICTION.parent))
    from plain_prediction import logits_and_labels

    results, found = Path(os.environ["nnUNet_results"]) / DATASET, {}
    images = work / "raw" / DATASET / "imagesTs"
    one = str(images / "case_8_0000.png")
    for trainer in (*PLAIN, *SCRIPTED):
        model = results / f"{trainer}__nnUNetPlans__2d"
        np.savez(work / "ours.npz", **logits_and_labels(model, [one]))
        deployed = work / "deployed" / trainer
        form = "torchscript" if trainer in SCRIPTED else "nnunet"
        here("osasis-export", "-i", model, "-o", deployed, "--format", form)
        plain = next((deployed / DATASET).glob("nnUNet*"))
        script = [str(plain / "fold_0.pt")] if trainer in SCRIPTED else []
        second.run("python", "-P", str(PREDICTION), str(plain), str(work / "theirs.npz"), *script, one)
        found[trainer] = {"exported_as": form, **same_arrays(work / "ours.npz", work / "theirs.npz")}
        if trainer in PLAIN:
            arguments = [str(images) if word == "images" else word for word in PREDICT] + ["--save_probabilities"]
            here("nnUNetv2_predict", *arguments, "-o", work / "a" / trainer, "-tr", trainer)
            elsewhere = {"nnUNet_raw": str(work / "nothing"), "nnUNet_preprocessed": str(work / "nothing")}
            there = str(work / "b" / trainer)
            second.run("nnUNetv2_predict", *arguments, "-o", there, nnUNet_results=str(deployed), **elsewhere)
            found[trainer]["nnUNetv2_predict"] = same_files(work / "a" / trainer, work / "b" / trainer)
    return found


def set_folders(work: Path) -> None:
    """nnU-Net's variables, all below ``work``."""
    for name in ("raw", "preprocessed", "results"):
        (work / name).mkdir(exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(work / name)


def main() -> None:
    """Everything, in a temporary folder; writes results/second_environment.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter to make the second environment with")
    parser.add_argument("--iterations", type=int, default=20, help="of each training")
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "results" / "second_environment.json")
    parser.add_argument("--train-in", type=Path, help=argparse.SUPPRESS)  # the part that runs in a process of its own
    args = parser.parse_args()
    if args.train_in:
        train([*PLAIN, *SCRIPTED], args.iterations)
        return
    with tempfile.TemporaryDirectory(prefix="osasis-second-") as temporary:
        work = Path(temporary)
        set_folders(work)
        os.environ.update(nnUNet_compile="f", nnUNet_n_proc_DA="2", OMP_NUM_THREADS="1")
        write_dataset(work / "raw" / DATASET)
        here("nnUNetv2_plan_and_preprocess", "-d", "990", "-c", "2d", "-np", "1", "-npfp", "1")
        style = Image.open(work / "raw" / DATASET / "imagesTr" / "case_0_0000.png")
        Image.fromarray((np.array(style) * np.array([0.6, 0.9, 1.0])).astype(np.uint8)).save(work / "style.png")
        steps = ["--iterations", "20", "--adapt-iterations", "2", "--calibrator-iterations", "20"]
        here(
            "osasis-pretrain-stylizer", "-d", "990", "-c", "2d", "--style", work / "style.png", *steps, "-device", "cpu"
        )
        here("python", __file__, "--train-in", work, "--iterations", str(args.iterations))
        second = Environment(args.python, work / "environment", [f"torch=={metadata.version('torch').split('+')[0]}"])
        second.pip("install", "nnunetv2")
        absent = second.output("python", "-c", SHOW)
        found = {
            "ours_in_the_second_environment": absent,
            "models": compare(work, second),
            "versions_here": {n: metadata.version(n) for n in ("nnunet-osasis", "nnunetv2", "torch", "numpy")},
            "python_here": platform.python_version(),
            "versions_there": second.versions(),
            "python_there": second.output("python", "-c", "import platform; print(platform.python_version())"),
        }
    args.o.parent.mkdir(parents=True, exist_ok=True)
    args.o.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["models"], indent=1))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error}\n{(error.stdout or '')[-2000:]}\n{(error.stderr or '')[-3000:]}") from error
