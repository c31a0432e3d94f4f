"""What a plans file may say to our trainers: ``"osasis": {...}`` in a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nnunet_osasis.errors import OsasisError

MOST_PROCESSES = 1024


@dataclass(frozen=True, kw_only=True)
class OsasisOptions:
    """Options of the trainers, all optional.

    Attributes:
        stylizer: folder of the stylizer; without it the dataset's own folder is searched. With ``on_the_fly`` it may be
            several, one of which is drawn for every sample.
        reference: image file whose style the controls (histogram matching, Reinhard) imitate; without it they take
            the reference stored in the stylizer folder.
        probability: chance in [0, 1] that a training case is drawn stylized.
        strength: how far to stylize, in [0, 1]; None takes the transfer's own default.
        seed: a non-negative integer for the draws.
        gate: whether stylized cases are compared with their originals by the structure gate.
        segmenter: a trained nnU-Net model folder that the gate asks as well.
        on_the_fly: restyle batches in the training step, each sample by a fresh strength up to ``strength``, instead
            of making a cache.
        processes: how many make the cache side by side; None takes nnU-Net's default where that is worth it.
        backbone: for PraNet, a timm model; None takes PraNet's own.
        backbone_weights: for PraNet, a file with ImageNet weights of that model; without it the caches are searched.
    """

    stylizer: Path | tuple[Path, ...] | None = None
    reference: Path | None = None
    probability: float = 0.5
    strength: float | None = None
    seed: int = 0
    gate: bool = True
    segmenter: Path | None = None
    on_the_fly: bool = False
    processes: int | None = None
    backbone: str | None = None
    backbone_weights: Path | None = None

    def __post_init__(self) -> None:
        _require_unit_interval("probability", self.probability)
        if self.strength is not None:
            _require_unit_interval("strength", self.strength)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise _error(f"seed must be a non-negative integer below {2**32}", self.seed)
        for name, value in (("gate", self.gate), ("on_the_fly", self.on_the_fly)):
            if not isinstance(value, bool):
                raise _error(f"{name} must be true or false", value)
        if isinstance(self.stylizer, tuple) and not self.on_the_fly:
            raise _error("several stylizers need on_the_fly true", f"{len(self.stylizer)} stylizers")
        whole = isinstance(self.processes, int) and not isinstance(self.processes, bool)
        if self.processes is not None and not (whole and 1 <= self.processes <= MOST_PROCESSES):
            raise _error(f"processes must be a whole number from 1 to {MOST_PROCESSES}", self.processes)
        if self.segmenter is not None and not self.gate:
            raise _error("segmenter is asked by the gate", "gate false")
        if self.backbone is not None and (not isinstance(self.backbone, str) or not self.backbone):
            raise _error("backbone must be the name of a timm model", self.backbone)

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any], *, relative_to: Path) -> OsasisOptions:
        """Read the key ``"osasis"`` of a plans configuration; a configuration without it gives the defaults.

        Relative paths count from ``relative_to``, the dataset's preprocessed folder. Raises ``OsasisError`` for
        unknown keys, wrong types and values out of range.
        """
        section = configuration.get("osasis")
        if section is None:
            return cls()
        if not isinstance(section, Mapping):
            raise _error("the value must be an object", section)
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(section) - set(known)):
            raise _error(f"the keys must be among {', '.join(known)}", ", ".join(map(repr, unknown)))
        values = dict(section)
        for name in ("stylizer", "reference", "segmenter", "backbone_weights"):
            value = values.pop(name, None)
            if name == "stylizer" and isinstance(value, list) and value:
                values[name] = tuple(_path(name, one, relative_to) for one in value)
            elif value is not None:
                values[name] = _path(name, value, relative_to)
        return cls(**values)

    @property
    def stylizers(self) -> tuple[Path | None, ...]:
        """The folders that are named; None stands for the dataset's own."""
        return self.stylizer if isinstance(self.stylizer, tuple) else (self.stylizer,)


def options_of(trainer: Any) -> OsasisOptions:
    """What the plans say to an nnU-Net trainer."""
    folder = Path(trainer.preprocessed_dataset_folder_base or ".")
    return OsasisOptions.from_configuration(trainer.configuration_manager.configuration, relative_to=folder)


def _path(name: str, value: object, relative_to: Path) -> Path:
    if not isinstance(value, str) or "\0" in value:
        raise _error(f"{name} must be a path", value)
    return relative_to / Path(value).expanduser()


def _require_unit_interval(name: str, value: object) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= 1:  # type: ignore[operator]
        raise _error(f"{name} must be a number in [0, 1]", value)


def _error(rule: str, found: object) -> OsasisError:
    return OsasisError(
        f'In the plans\' configuration, "osasis": {rule}',
        found=_shown(found),
        remedy='Example: "osasis": {"stylizer": "/data/stylizer", "probability": 0.5, "strength": null, "seed": 0}.',
    )


def _shown(found: object) -> str:
    """A value in few words; whole numbers of thousands of digits cannot even be printed."""
    if isinstance(found, int) and abs(found) > 10**30:
        return "a number of more than 30 digits"
    text = found if isinstance(found, str) and found.startswith("'") else repr(found)
    return text if len(text) <= 200 else f"{text[:200]}..."
