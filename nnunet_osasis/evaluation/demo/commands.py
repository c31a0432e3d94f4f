"""Every public command of the demonstration, with its arguments, in one place."""

from __future__ import annotations

import os

from nnunet_osasis.evaluation.demo.methods import Method, methods
from nnunet_osasis.evaluation.demo.settings import CONFIGURATION, SOURCE_DATASET, TRUTH_DATASET, DemoSettings
from nnunet_osasis.evaluation.demo.workspace import Workspace
from nnunet_osasis.runtime.commands import Command


def plan_command(settings: DemoSettings) -> Command:
    """Fingerprint, planning and preprocessing of the dataset(s)."""
    datasets = [SOURCE_DATASET[0]] if settings.own_images else [SOURCE_DATASET[0], TRUTH_DATASET[0]]
    workers = str(min(4, max(1, (os.cpu_count() or 1) // 2)))
    # --clean: nnU-Net would take the fingerprint that a killed run left half-written for a whole one
    arguments = ["-d", *map(str, datasets), "-c", "2d", "-np", workers, "-npfp", workers, "--clean"]
    return Command("nnUNetv2_plan_and_preprocess", tuple(arguments))


def stylizer_command(settings: DemoSettings, workspace: Workspace) -> Command:
    """Pretraining on the source dataset's images, adaptation to the one reference."""
    arguments = ["-d", str(SOURCE_DATASET[0]), "-c", CONFIGURATION, "--style", str(workspace.reference)]
    arguments += ["--preset", "tiny", "--minutes", str(settings.minutes_pretrain), "--seed", str(settings.seed)]
    if settings.from_stylizer is not None:
        arguments += ["--from-stylizer", str(settings.from_stylizer.resolve())]
    if settings.adapt_iterations is not None:
        arguments += ["--adapt-iterations", str(settings.adapt_iterations)]
    if settings.calibrator_iterations is not None:
        arguments += ["--calibrator-iterations", str(settings.calibrator_iterations)]
    return Command("osasis-pretrain-stylizer", (*arguments, "--overwrite", "-device", settings.device))


def training_command(method: Method, fold: int, settings: DemoSettings) -> Command:
    """One training, the same for every method but for trainer and dataset."""
    trainer = method.trainer_name(settings.trainer_length)
    arguments = (str(method.dataset[0]), CONFIGURATION, str(fold), "-tr", trainer, "-device", settings.device)
    return Command("nnUNetv2_train", arguments, one_core=settings.device == "cpu")


def prediction_command(method: Method, fold: int, settings: DemoSettings, workspace: Workspace) -> Command:
    """Masks for the test images of both scanners."""
    arguments = ["-i", str(workspace.test_images), "-o", str(workspace.predictions(method.key, fold))]
    arguments += ["-d", str(method.dataset[0]), "-c", CONFIGURATION, "-f", str(fold)]
    arguments += ["-tr", method.trainer_name(settings.trainer_length), "-npp", "1", "-nps", "1", "--disable_tta"]
    return Command("nnUNetv2_predict", (*arguments, "-device", settings.device), one_core=settings.device == "cpu")


def stylize_command(settings: DemoSettings, workspace: Workspace) -> Command:
    """Stylized pictures to look at and to measure."""
    arguments = ["--stylizer", str(workspace.stylizer), "-i", str(workspace.to_stylize)]
    return Command("osasis-stylize", (*arguments, "-o", str(workspace.stylized), "-device", settings.device))


def commands_at_once(settings: DemoSettings) -> int:
    """How many commands run side by side: on CPUs one for two cores, and two where there are but two.

    A training keeps one core busy, and part of another one with augmentation.
    """
    cores = os.cpu_count() or 1
    return min(len(rows(settings)) + 1, max(2, cores // 2)) if settings.device == "cpu" and cores > 1 else 1


def threads(settings: DemoSettings) -> int:
    """Threads for one of the commands that run side by side: more than there are cores makes all of them crawl."""
    return max(1, (os.cpu_count() or 1) // commands_at_once(settings))


def rows(settings: DemoSettings) -> tuple[Method, ...]:
    """The table's rows for these settings."""
    return methods(own_images=settings.own_images)
