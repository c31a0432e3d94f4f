"""What stylization adds to an epoch of nnU-Net: the stock trainer, the cache, and style in the training step.

    python benchmarks/speed/nnunet_epoch.py --stylizer STYLIZER [--student STYLIZER_WITH_STUDENT]

All trainers live in one process and take turns, epoch by epoch; cache and measurements are made before. An epoch is its
training and validation steps; checkpoints and the plot of the progress, the same for all, are left out. Augmentation
takes ``--workers`` processes (nnUNet_n_proc_DA; 0: in the training process, so that all of it counts, and with equal
draws for all trainers).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunet_home import from_folders, make_home, make_trainer, phantoms
from timing import measure, parser_of, write

GOAL = {"cached": 1.02, "on_the_fly": 1.10}
"""Of the stock trainer's epoch; the second one is meant for a GPU."""


def epoch_of(trainer: Any) -> Callable[[], None]:
    """One epoch as nnU-Net's ``run_training`` does it, with the epoch's own cases and augmentations, equal for all."""

    def run() -> None:
        np.random.seed(trainer.current_epoch)
        torch.manual_seed(trainer.current_epoch)
        trainer.on_train_epoch_start()
        for _ in range(trainer.num_iterations_per_epoch):
            trainer.train_step(next(trainer.dataloader_train))
        with torch.no_grad():
            trainer.on_validation_epoch_start()
            for _ in range(trainer.num_val_iterations_per_epoch):
                trainer.validation_step(next(trainer.dataloader_val))
        trainer.current_epoch += 1

    return run


def main() -> None:
    """Measure and write."""
    parser = parser_of(__doc__, "nnunet_epoch.json")
    parser.add_argument("--stylizer", type=Path, required=True, help="for the cache and on the fly")
    parser.add_argument("--student", type=Path, help="another one, on the fly only: one with a student")
    parser.add_argument("--images", type=Path, help="pictures; without them phantoms are rendered")
    parser.add_argument("--masks", type=Path, help="their masks, of the same names")
    parser.add_argument("--cases", type=int, default=48)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ |= {"nnUNet_n_proc_DA": str(args.workers), "nnUNet_compile": "f"}
    with tempfile.TemporaryDirectory() as root:
        data = from_folders(args.images, args.masks, args.cases, args.size) if args.images else None
        images, masks = data or phantoms(args.cases, args.size)
        folder = make_home(Path(root), images, masks, patch=args.patch, batch=args.batch, osasis={})
        named = {"stylizer": str(args.stylizer.absolute())}
        fly = {"on_the_fly": True}
        sections: dict[str, tuple[str, dict]] = {
            "stock": ("nnUNetTrainer", {}),
            "cached": ("nnUNetTrainerOSASIS", named),
            "on_the_fly": ("nnUNetTrainerOSASIS", named | fly),
        }
        if args.student:
            sections["on_the_fly_student"] = (
                "nnUNetTrainerOSASIS", fly | {"stylizer": str(args.student.absolute())}
            )  # fmt: skip
        trainers = {
            name: make_trainer(trainer, folder, args.iterations, args.device, osasis)
            for name, (trainer, osasis) in sections.items()
        }
        tasks = {name: epoch_of(trainer) for name, trainer in trainers.items()}
        times = measure(tasks, rounds=args.epochs, warm_ups=1, device=args.device)
    against = {name: round(found["median"] / times["stock"]["median"], 4) for name, found in times.items()}
    settings = {name: value for name, value in vars(args).items() if not isinstance(value, Path)}
    write(
        args.output,
        {"settings": settings, "seconds_per_epoch": times, "ratio_to_stock": against, "goal": GOAL},
        " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
    )
    print(against)


if __name__ == "__main__":
    main()
