"""How many files of the project one thing crosses on its way, on four walks.

1. stylize: one picture through ``osasis-stylize``, gate included.
2. trainer: one training case through ``nnUNetTrainerOSASIS`` (cache, gate) to the first batch.
3. reference: the reference image through ``osasis-pretrain-stylizer`` to a stylizer folder, every stage.
4. monai: one array through ``OSASISStylized``.

A file counts when one of its functions is called; what runs at import does not count. Only public doors are used, so
that the script runs on any version. ``python benchmarks/house/walks.py -o benchmarks/house/walks.json --label after``
adds one entry to the file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("nnunet_osasis", "monai_transforms", "scripts", "trainers")


class Trace:
    """Collects the project's files in which functions are called while it is open."""

    def __init__(self, root: Path) -> None:
        self.folders = tuple(f"{root / folder}{os.sep}" for folder in FOLDERS)
        self.root, self.files = root, set[str]()

    def _event(self, frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and frame.f_code.co_name != "<module>" and name.startswith(self.folders):
            self.files.add(name)

    def __enter__(self) -> Trace:
        threading.setprofile(self._event)
        sys.setprofile(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def names(self) -> list[str]:
        """The files, relative to the repository."""
        return sorted(str(Path(name).relative_to(self.root)) for name in self.files)


def picture(seed: int, size: int = 64) -> np.ndarray:
    """``(size, size, 3)`` uint8: a smooth scene with a bright disc."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    image = np.stack([110 + 50 * np.sin(6 * (rng.uniform(0.5, 3) * x + y) + c) for c in range(3)], axis=-1)
    image += 45 * (((x - 0.5) ** 2 + (y - 0.4) ** 2) < 0.04)[..., None]
    return np.clip(image + rng.normal(0, 2, image.shape), 1, 255).astype(np.uint8)


def write_images(folder: Path, count: int) -> None:
    folder.mkdir()
    for i in range(count):
        Image.fromarray(picture(i)).save(folder / f"case_{i}.png")


def pretrain(root: Path) -> None:
    from nnunet_osasis.scripts.pretrain_stylizer import main

    warm = np.clip(picture(99) * [1.1, 0.9, 0.7], 0, 255).astype(np.uint8)
    Image.fromarray(warm).save(root / "style.png")
    main([
        "--images", str(root / "images"), "--style", str(root / "style.png"), "--output", str(root / "stylizer"),
        "--preset", "tiny", "--iterations", "2", "--adapt-iterations", "1", "--calibrator-iterations", "3",
        "-device", "cpu",
    ])  # fmt: skip


def stylize(root: Path) -> None:
    from nnunet_osasis.scripts.stylize import main

    main(
        ["-i", str(root / "one"), "-o", str(root / "restyled"), "--stylizer", str(root / "stylizer"), "-device", "cpu"]
    )


def monai(root: Path) -> None:
    from monai_transforms import OSASISStylized

    OSASISStylized("image", root / "stylizer")({"image": np.moveaxis(picture(3), -1, 0)})


def prepare_nnunet(root: Path) -> None:
    """An nnU-Net dataset of six pictures, planned and preprocessed by nnU-Net."""
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir()
        os.environ[f"nnUNet_{name}"] = str(root / name)
    os.environ.update(nnUNet_n_proc_DA="1", nnUNet_def_n_proc="1", nnUNet_compile="f")
    dataset = root / "raw/Dataset501_Walk"
    for part in ("imagesTr", "labelsTr"):
        (dataset / part).mkdir(parents=True)
    for i in range(6):
        Image.fromarray(picture(i)).save(dataset / f"imagesTr/case_{i}_0000.png")
        Image.fromarray((picture(i)[..., 0] > 150).astype(np.uint8)).save(dataset / f"labelsTr/case_{i}.png")
    facts = {
        "channel_names": {str(i): "rgb_to_0_1" for i in range(3)}, "labels": {"background": 0, "disc": 1},
        "numTraining": 6, "file_ending": ".png",
    }  # fmt: skip
    (dataset / "dataset.json").write_text(json.dumps(facts))
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    extract_fingerprints([501], num_processes=1)
    plan_experiments([501])
    preprocess([501], configurations=["2d"], num_processes=[1])
    plans = root / "preprocessed/Dataset501_Walk/nnUNetPlans.json"
    values = json.loads(plans.read_text())
    values["configurations"]["2d"]["osasis"] = {"stylizer": str(root / "stylizer"), "probability": 1.0, "processes": 1}
    plans.write_text(json.dumps(values))


def trainer(root: Path) -> None:
    import torch
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    os.environ["nnUNet_n_proc_DA"] = "0"  # the planner takes no 0, the loader draws in this process with it
    folder = root / "preprocessed/Dataset501_Walk"
    plans, facts = (json.loads((folder / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    kind = recursive_find_trainer_class_by_name("nnUNetTrainerOSASIS")
    plans["continue_training"] = False
    one = kind(plans, "2d", 0, facts, device=torch.device("cpu"))
    one.initialize()
    one.on_train_start()
    next(one.dataloader_train)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", type=Path, required=True)
    parser.add_argument("--label", required=True)
    args = parser.parse_args()
    import nnunet_osasis

    source = Path(nnunet_osasis.__file__).resolve().parents[1]
    walks: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_images(root / "images", 8)
        write_images(root / "one", 1)
        steps: tuple[tuple[str, Callable[[Path], None]], ...] = (
            ("reference", pretrain), ("stylize", stylize), ("monai", monai), ("trainer", trainer),
        )  # fmt: skip
        for title, walk in steps:
            if title == "trainer":
                prepare_nnunet(root)
            with Trace(source) as trace:
                walk(root)
            walks[title] = trace.names()
    known = json.loads(args.o.read_text()) if args.o.exists() else {}
    known[args.label] = {title: {"files": len(names), "names": names} for title, names in walks.items()}
    args.o.write_text(json.dumps(known, indent=1) + "\n")
    sys.stdout.write(f"{args.label}: " + ", ".join(f"{title} {len(names)}" for title, names in walks.items()) + "\n")


if __name__ == "__main__":
    main()
