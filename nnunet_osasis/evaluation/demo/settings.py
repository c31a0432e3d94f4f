"""What one run of the demonstration is: data, sizes, lengths. Frozen, so that finished steps can be recognised."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_osasis.errors import OsasisError

CONFIGURATION = "2d_demo"

SOURCE_DATASET = (501, "Dataset501_OsasisDemoSource")

TRUTH_DATASET = (502, "Dataset502_OsasisDemoTruth")


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """One demonstration.

    Attributes:
        output: folder of everything it makes.
        source, target: a user's own folders (``images/`` and ``masks/`` in each); None for the phantom.
        source_test: own images for the in-domain test, for sources that may not be split at random (videos, several
            images per patient); None keeps a random quarter of ``source`` for it.
        from_stylizer: a stylizer whose pretrained autoencoder is taken, so that only the adaptation is done.
        seed: of scenes, splits and the stylizer.
        device: ``cpu``, ``cuda`` or ``mps``, for every command.
        training_cases, test_cases: phantom scenes for training, and for testing per scanner.
        validation_cases: of the training cases, how many nnU-Net validates on.
        repeats: trainings per method (folds 0, 1, ...): one training on the second scanner is much a matter of chance.
        side: phantom image size. own_side: own images are reduced so that their longer side is no more than this.
        patch, batch, features: of the small U-Net (``2d_demo``).
        trainer_length: suffix of the trainers of every method alike, such as ``5epochs``.
        minutes_pretrain: time for pretraining the stylizer.
        adapt_iterations: of the one-shot adaptation (the default read-out does not use it, so the demo keeps it short).
        calibrator_iterations: of the calibrator; None takes its own default.
        fidelity_cases: training images on which styles are compared.
    """

    output: Path
    source: Path | None = None
    target: Path | None = None
    source_test: Path | None = None
    from_stylizer: Path | None = None
    seed: int = 0
    device: str = "cpu"
    training_cases: int = 80
    test_cases: int = 32
    validation_cases: int = 4
    repeats: int = 2
    side: int = 96
    own_side: int = 160
    patch: int = 64
    batch: int = 2
    features: tuple[int, ...] = (12, 24, 48, 96)
    trainer_length: str = "5epochs"
    minutes_pretrain: float = 2.0
    adapt_iterations: int | None = 10
    calibrator_iterations: int | None = None
    fidelity_cases: int = 24

    def __post_init__(self) -> None:
        if (self.source is None) != (self.target is None):
            raise OsasisError(
                "Own images need both --source and --target",
                found=f"only --{'source' if self.target is None else 'target'}",
                remedy="Each is a folder with images/ and masks/; leave both out for the phantom.",
            )
        if self.source_test is not None and self.source is None:
            raise OsasisError("--source-test goes with --source and --target", found=self.source_test)

    @property
    def own_images(self) -> bool:
        """Whether the images are the user's."""
        return self.source is not None

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON-ready values."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}


def quick(settings: dict[str, Any]) -> dict[str, Any]:
    """``settings`` changed so that the whole line runs in about two minutes; its figures then mean nothing."""
    small = {
        "training_cases": 12,
        "test_cases": 4,
        "validation_cases": 2,
        "repeats": 1,
        "side": 48,
        "own_side": 64,
        "patch": 32,
        "batch": 2,
        "features": (4, 8, 8),
        "minutes_pretrain": 0.05,
        "adapt_iterations": 1,
        "calibrator_iterations": 2,
        "fidelity_cases": 4,
    }
    return {**settings, **small}
