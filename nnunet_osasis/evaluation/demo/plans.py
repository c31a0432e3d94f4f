"""A small configuration beside nnU-Net's own, in nnU-Net's idiom: ``2d_demo`` inherits from ``2d``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_osasis.evaluation.demo.settings import CONFIGURATION, DemoSettings
from nnunet_osasis.nnunet.raw_dataset import small_configuration
from nnunet_osasis.runtime.records import atomic_write_json, read_json


def add_demo_configuration(folder: Path, settings: DemoSettings, reference: Path) -> None:
    """Add ``2d_demo`` to the plans in a dataset's preprocessed ``folder``, and fix the folds.

    ``2d_demo`` shares the preprocessed data of ``2d``; it has fewer features, stages and pixels per patch, so that
    all trainings fit a coffee break. Folds validate on few cases, because the tests are images of their own.
    """
    path = folder / "nnUNetPlans.json"
    plans = read_json(path, what="nnU-Net's plans")
    plans["configurations"][CONFIGURATION] = demo_configuration(plans["configurations"]["2d"], settings, reference)
    atomic_write_json(path, plans)
    suffix = plans["configurations"]["2d"]["data_identifier"]
    cases = sorted(file.stem for file in (folder / suffix).glob("*.pkl"))
    atomic_write_json(folder / "splits_final.json", demo_splits(cases, settings))


def demo_splits(cases: list[str], settings: DemoSettings) -> list[dict[str, list[str]]]:
    """One fold per repeat, each with a few validation cases of its own and all others for training."""
    count = min(settings.validation_cases, max(1, len(cases) // 5))
    held_out = [cases[fold * count : (fold + 1) * count] for fold in range(settings.repeats)]
    return [{"train": [case for case in cases if case not in out], "val": out} for out in held_out]


def demo_configuration(full: dict[str, Any], settings: DemoSettings, reference: Path) -> dict[str, Any]:
    """The difference of ``2d_demo`` to the configuration ``full``."""
    return {
        **small_configuration(full, settings.features, settings.patch, settings.batch),
        "osasis": {"reference": str(reference), "probability": 0.5, "seed": settings.seed},
    }
