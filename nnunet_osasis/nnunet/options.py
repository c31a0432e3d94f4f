"""The ``"osasis"`` section of an nnU-Net plans file: the options of our trainers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationInfo,
    model_validator,
)
from pydantic.dataclasses import dataclass

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.validation import STRICT_KEYS, validated

MAX_PROCESSES = 1024
"""Largest number of processes that a plans file may ask for; more is taken for a mistake."""

EXAMPLE = 'Example: "osasis": {"stylizer": "/data/stylizer", "probability": 0.5, "strength": null, "seed": 0}.'


def _in_dataset_folder(path: Path, info: ValidationInfo) -> Path:
    """Resolve ``~`` and paths relative to the dataset's preprocessed folder, which the context names."""
    if "\0" in str(path):
        raise OsasisError(f"{info.field_name} must be a path", found=repr(str(path)), remedy=EXAMPLE)
    return Path((info.context or {}).get("relative_to", ".")) / path.expanduser()


DatasetPath = Annotated[Path, AfterValidator(_in_dataset_folder)]


@dataclass(frozen=True, kw_only=True, config=STRICT_KEYS)
class OsasisOptions:
    """Options of the trainers, all of them optional.

    Attributes:
        stylizer: folder of the stylizer; by default the dataset's own. With ``on_the_fly`` a list of folders is
            allowed: each sample is restyled by one of them, drawn at random.
        reference: image file whose style the controls (histogram matching, Reinhard, FDA) imitate; by default the
            reference image stored in the stylizer folder.
        probability: chance that a training case is drawn stylized.
        strength: how far to stylize; None takes the default of the transfer.
        seed: seed of the draws.
        gate: compare stylized cases with their originals by the structure gate.
        segmenter: folder of a trained nnU-Net model whose segmentations the gate compares as well.
        on_the_fly: restyle batches in the training step, each sample by a fresh strength of at most ``strength``,
            instead of making a cache.
        processes: number of processes that make the cache; None takes nnU-Net's default where it is worth starting
            them.
        backbone: timm model that PraNet is built on; None takes the one of the paper.
        backbone_weights: file with ImageNet weights of that model; by default the caches of timm and torch are
            searched.

    >>> OsasisOptions.from_configuration({"osasis": {"probability": 0.25}}, relative_to=Path("/data")).probability
    0.25
    """

    stylizer: Annotated[
        DatasetPath | Annotated[tuple[DatasetPath, ...], Field(min_length=1)] | None,
        Field(description="a path, or with on_the_fly a list of paths"),
    ] = None
    reference: Annotated[DatasetPath | None, Field(description="a path")] = None
    probability: Annotated[StrictFloat, Field(ge=0, le=1, description="a number in [0, 1]")] = 0.5
    strength: Annotated[StrictFloat | None, Field(ge=0, le=1, description="a number in [0, 1], or null")] = None
    seed: Annotated[StrictInt, Field(ge=0, lt=2**32, description="a non-negative integer below 2**32")] = 0
    gate: StrictBool = True
    segmenter: Annotated[DatasetPath | None, Field(description="a path")] = None
    on_the_fly: StrictBool = False
    processes: Annotated[
        StrictInt | None, Field(ge=1, le=MAX_PROCESSES, description=f"a whole number from 1 to {MAX_PROCESSES}")
    ] = None
    backbone: Annotated[StrictStr | None, Field(min_length=1, description="the name of a timm model")] = None
    backbone_weights: Annotated[DatasetPath | None, Field(description="a path")] = None

    @model_validator(mode="after")
    def _check_combinations(self) -> OsasisOptions:
        if isinstance(self.stylizer, tuple) and not self.on_the_fly:
            raise OsasisError("several stylizers need on_the_fly true", found=f"{len(self.stylizer)} stylizers")
        if self.segmenter is not None and not self.gate:
            raise OsasisError("segmenter needs gate true", found="gate false")
        return self

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any], *, relative_to: Path) -> OsasisOptions:
        """Read the key ``"osasis"`` of a plans configuration; without it, all options have their defaults.

        Args:
            configuration: one entry of ``"configurations"`` in the plans.
            relative_to: folder that relative paths start from, the dataset's preprocessed folder.

        Raises:
            OsasisError: for unknown keys, wrong types, values out of range, and options that exclude each other.
        """
        section = configuration.get("osasis")
        return validated(
            cls,
            {} if section is None else section,
            what='In the plans\' configuration, "osasis"',
            remedy=EXAMPLE,
            context={"relative_to": relative_to},
        )

    @property
    def stylizers(self) -> tuple[Path | None, ...]:
        """The stylizer folders that the plans name; None stands for the dataset's own."""
        return self.stylizer if isinstance(self.stylizer, tuple) else (self.stylizer,)
