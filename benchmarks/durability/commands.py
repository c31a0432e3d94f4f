"""The long commands in small: made-up data, and networks so small that a whole run takes seconds."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image

DATASET = "Dataset901_MadeUp"
NETWORK = {
    "sample_size": 32,
    "block_out_channels": (16, 16, 32),
    "encoder_block_out_channels": (16, 16, 32, 32),
    "time_dim": 32,
    "z_dim": 32,
}


@dataclass(frozen=True)
class LongCommand:
    """One command.

    Attributes:
        name: for the results. run: ``run(data, output)`` does what is not done yet in ``output``.
        needs: of the made-up data, beyond images: ``stylizer``, ``nnunet``.
        left_out: why some files are not compared, by shell pattern.
    """

    name: str
    run: Callable[[Path, Path], None]
    needs: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


def picture(seed: int, side: int, *, warm: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A coloured scene ``(side, side, 3)`` uint8 with a disc, and its mask ``(side, side)`` of 0 and 255."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j]
    cy, cx = rng.uniform(0.35, 0.65, 2)
    disc = np.hypot(y - cy, x - cx) < rng.uniform(0.15, 0.3)
    ground = 120 + 40 * np.sin(rng.uniform(2, 7) * x + rng.uniform(2, 7) * y) + 60 * disc
    colours = np.array([1.0 * warm, 0.75, 0.6 / warm])
    shown = ground[..., None] * colours + rng.normal(0, 3, (side, side, 3))
    return np.clip(shown, 1, 255).astype(np.uint8), (disc * 255).astype(np.uint8)


def _site(folder: Path, count: int, side: int, *, first: int = 0, warm: float = 1.0) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for i in range(count):
        image, mask = picture(first + i, side, warm=warm)
        Image.fromarray(image).save(folder / "images" / f"case_{i:03d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"case_{i:03d}.png")


def shrink() -> None:
    """Make the tiny preset tinier, with checkpoints every few steps. For processes that only measure this."""
    from nnunet_osasis.stylizer import calibrator
    from nnunet_osasis.training import distil, presets
    from nnunet_osasis.training.adaptation import recipes

    tiny = presets.PRESETS["tiny"]
    spn = {"hidden_channels": (16, 32), "time_dim": 32}
    pretrain = replace(tiny.pretrain, batch_size=4, precision="fp32", checkpoint_every=5, grid_every=20)
    presets.PRESETS["tiny"] = replace(tiny, model={**tiny.model, **NETWORK}, spn=spn, pretrain=pretrain)
    recipe = recipes.RECIPES["default"]
    recipes.RECIPES["default"] = replace(
        recipe,
        contents=2,
        precision="fp32",
        checkpoint_every=2,
        select_every=3,
        sampler=replace(recipe.sampler, encode_steps=4, decode_steps=3),
        pair=replace(recipe.pair, samples=2, steps=4),
    )
    calibrator.CalibratorConfig = partial(  # type: ignore[misc]
        calibrator.CalibratorConfig, batch_size=4, pixels=64, simulations=3, checkpoint_every=10
    )
    distil.SAVE_EVERY, distil.BATCH = 1, 2
    distil.DistilConfig = partial(distil.DistilConfig, batch_size=4, checkpoint_every=10)  # type: ignore[misc]


def make_data(root: Path, needs: Collection[str]) -> None:
    """Two sites and a reference; as far as needed a stylizer, and a dataset that nnU-Net planned and preprocessed.

    For a process of its own: nnU-Net is told to use threads, and torch starts some.
    """
    _site(root / "a", 12, 32)
    _site(root / "b", 6, 32, first=50, warm=0.7)
    _site(root / "many", 20, 96)
    _site(root / "maps", 20, 96, first=30)
    Image.fromarray(picture(99, 32, warm=0.6)[0]).save(root / "style.png")
    _experiment(root)
    if "stylizer" in needs:
        _pretrain(root, root / "stylizer", pretrain=2, calibrator=4, adapt=1)
    if "nnunet" in needs:
        _nnunet(root)


def _pretrain(
    data: Path, output: Path, *, pretrain: int, calibrator: int, adapt: int, student: int = 0, lent: bool = False
) -> None:
    from nnunet_osasis.scripts import pretrain_stylizer

    counts = ["--iterations", pretrain, "--calibrator-iterations", calibrator, "--adapt-iterations", adapt]
    arguments = ["--images", data / "a/images", "--style", data / "style.png", "--output", output, *counts]
    given = ["--from-stylizer", data / "stylizer"] if lent else []
    given += ["--distil", "local_affine", "--distil-iterations", student] if student else []
    pretrain_stylizer.main([str(a) for a in [*arguments, *given, "--preset", "tiny", "-device", "cpu", "--resume"]])


def _experiment(root: Path) -> None:
    def images(site: str, *include: str) -> dict:
        return {"images": f"{site}/images", "masks": f"{site}/masks", "include": list(include)}

    values = {
        "name": "kills",
        "train": images("a", "case_00*"),
        "test": images("a", "case_01*"),
        "targets": [{"name": "b", "set": images("b", "*")}],
        "networks": ["unet"],
        "methods": ["none", "histogram_matching"],
        "seeds": [0, 1],
        "budget": {"side": 32, "patch": 32, "iterations": 20, "batch_size": 4, "features": [8, 16]},
        "metrics": ["dice", "iou", "mae"],
    }
    (root / "experiment.json").write_text(json.dumps(values))


def set_nnunet(root: Path) -> None:
    """Point nnU-Net at folders below ``root``, with threads for processes: the images are too small for those."""
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(root / name)
    os.environ["nnUNet_n_proc_DA"] = "1"

    class Threads:
        Pool = ThreadPool

    multiprocessing.get_context = lambda method=None: Threads()  # type: ignore[assignment,return-value]


def _nnunet(root: Path) -> None:
    images = {f"case_{i:03d}": picture(i, 64)[0] for i in range(12)}
    masks = {name: (picture(i, 64)[1] > 0).astype(np.uint8) for i, name in enumerate(images)}
    set_nnunet(root / "nnunet")
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    from nnunet_osasis.nnunet.raw_dataset import write_raw_dataset

    write_raw_dataset(root / "nnunet/raw" / DATASET, images, masks)
    extract_fingerprints([901], num_processes=1, clean=True, verbose=False)
    plan_experiments([901])
    preprocess([901], configurations=["2d"], num_processes=[1], verbose=False)


def _stylize(data: Path, output: Path) -> None:
    from nnunet_osasis.scripts import stylize

    folders = ["-i", data / "many/images", "-o", output, "--masks", data / "many/masks"]
    stylize.main([str(a) for a in [*folders, "--stylizer", data / "stylizer", "-device", "cpu"]])


def _cache(data: Path, output: Path) -> None:
    """The cache lies beside the preprocessed data: ``output`` is a copy of nnU-Net's folders."""
    if not (output / "preprocessed").exists():
        _copy_tree(data / "nnunet", output)
    set_nnunet(output)
    from nnunet_osasis import OSASISStylizer
    from nnunet_osasis.nnunet.cache import StylizedCache
    from nnunet_osasis.nnunet.configuration import NnunetConfiguration

    stylizer = OSASISStylizer.from_pretrained(data / "stylizer")
    cache = StylizedCache(NnunetConfiguration.load(DATASET, "2d"), stylizer, None)
    cache.build([f"case_{i:03d}" for i in range(12)])


def _copy_tree(source: Path, target: Path) -> None:
    """Whole or absent, as a copy of the tree that is made before any kill."""
    import shutil

    unfinished = target.with_name(f"{target.name}.copying")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(source, unfinished)
    with contextlib.suppress(FileNotFoundError):
        target.rmdir()
    unfinished.rename(target)


def _prepare(data: Path, output: Path) -> None:
    from nnunet_osasis.errors import OsasisError
    from nnunet_osasis.scripts import prepare

    os.environ["nnUNet_preprocessed"] = str(output / "preprocessed")
    folders = ["--images", data / "many/images", "--masks", data / "many/masks", "-o", output / "raw"]
    try:
        prepare.main([str(a) for a in [*folders, "-d", "701", "-name", "Kills"]])
    except OsasisError as error:
        if "is not overwritten" not in str(error):  # it was whole already when the last run was killed
            raise


def _evaluate(data: Path, output: Path) -> None:
    from nnunet_osasis.scripts import evaluate

    evaluate.main([str(a) for a in ["-p", data / "maps/masks", "-r", data / "many/masks", "-o", output, "-np", 1]])


def _report(data: Path, output: Path) -> None:
    from nnunet_osasis.scripts import report

    report.main([str(data / "experiment.json"), "-o", str(output), "-np", "2", "-device", "cpu"])


LONG_COMMANDS = (
    LongCommand("pretraining", partial(_pretrain, pretrain=60, calibrator=0, adapt=1)),
    LongCommand("distilling", partial(_pretrain, pretrain=1, calibrator=0, adapt=1, student=120)),
    LongCommand("calibrator", partial(_pretrain, pretrain=1, calibrator=120, adapt=1)),
    LongCommand("adaptation", partial(_pretrain, pretrain=1, calibrator=0, adapt=16, lent=True), ("stylizer",)),
    LongCommand("osasis-stylize", _stylize, ("stylizer",)),
    LongCommand(
        "nnU-Net cache",
        _cache,
        ("stylizer", "nnunet"),
        {"preprocessed/*_records/log.jsonl": "says how often the work was taken up again"},
    ),
    LongCommand("osasis-prepare", _prepare),
    LongCommand("osasis-evaluate", _evaluate),
    LongCommand(
        "osasis-report",
        _report,
        (),
        {
            "report.html": "shows seconds and memory; its tables are compared through results.json and rows.csv",
            "report.md": "the same",
            "log.jsonl": "says how often the work was taken up again",
        },
    ),
)
