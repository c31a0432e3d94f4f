"""From mask files to nnU-Net's label maps, and what is too doubtful to convert."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.masks import NEAR, _is_value, binary_labels, one_channel

IGNORE = "ignore"


@dataclass(frozen=True)
class LabelRule:
    """How masks become labels.

    Attributes:
        foreground: name of label 1 of a binary mask.
        threshold: binary masks: foreground is what lies above; None takes the rules of :func:`binary_labels`.
        classes: values of masks of several classes, by name, the background first; empty for binary masks.
        ignore_outside: give what lies outside the field of view nnU-Net's ignore label.
    """

    foreground: str = "foreground"
    threshold: float | None = None
    classes: Mapping[str, int] | None = None
    ignore_outside: bool = False

    def names(self) -> dict[str, int]:
        """The ``labels`` of dataset.json; the ignore label is the highest, as nnU-Net demands."""
        named = dict.fromkeys(self.classes) if self.classes else {"background": None, self.foreground: None}
        labels = {name: value for value, name in enumerate(named)}
        return {**labels, IGNORE: len(labels)} if self.ignore_outside else labels

    def convert(self, mask: np.ndarray, field: np.ndarray | None = None) -> np.ndarray:
        """A mask ``(C, *spatial)`` as stored to labels ``(*spatial)`` uint8. Raises ``OsasisError`` if doubtful."""
        flat = one_channel(mask)
        labels = class_labels(flat, self.classes) if self.classes else binary_labels(flat, self.threshold)
        if self.ignore_outside:
            if field is None:
                raise OsasisError("--outside-field ignore needs masks of the field of view", found="none")
            labels[binary_labels(one_channel(field), None) == 0] = self.names()[IGNORE]
        return labels


def class_labels(mask: np.ndarray, classes: Mapping[str, int]) -> np.ndarray:
    """Values of several classes to 0, 1, 2, ... in their order, uint8."""
    labels = np.full(mask.shape, 255, np.uint8)
    for label, value in enumerate(classes.values()):
        labels[mask == value] = label
    if (labels == 255).any():
        stray = np.unique(mask[labels == 255]).tolist()
        raise OsasisError(
            f"A mask may hold the values {', '.join(map(str, classes.values()))} of --labels",
            found=f"also {', '.join(map(str, stray[:6]))}",
            remedy="Name all classes.",
        )
    return labels


def foreground_value(mask: np.ndarray) -> int | None:
    """The foreground's value in a mask of 0 and one more value, else None; for :func:`require_one_foreground`."""
    values = np.unique(mask)
    values = values[values != 0]
    if len(values) != 1:
        return None
    return 255 if mask.dtype == np.uint8 and values[0] >= 255 - NEAR else int(values[0])


def require_one_foreground(values: Iterable[int | None]) -> None:
    """Refuse binary masks that disagree about the foreground's value: they may be single classes of a label map."""
    distinct = sorted({value for value in values if value is not None})
    if len(distinct) > 1:
        raise OsasisError(
            "The foreground of binary masks must have one value in all of them",
            found=f"the values {', '.join(map(str, distinct[:6]))}",
            remedy="If they are classes, name them (--labels background=0 a=1 b=2); else state --threshold 0.",
        )


def parse_classes(items: Iterable[str]) -> dict[str, int]:
    """``["background=0", "disc=128"]`` as a dict. Raises ``OsasisError`` for anything else."""
    classes: dict[str, int] = {}
    for item in items:
        name, _, value = item.partition("=")
        if not name or not _is_value(value) or name in classes or int(value) in classes.values() or name == IGNORE:
            raise OsasisError(
                "--labels takes names with the values of the masks, each once",
                found=item,
                remedy="For example --labels background=0 disc=128 cup=255.",
            )
        classes[name] = int(value)
    if len(classes) < 2 or next(iter(classes)) != "background":
        raise OsasisError(
            "--labels must begin with the background and name another class",
            found=" ".join(classes) or "nothing",
            remedy="For example --labels background=0 disc=128 cup=255.",
        )
    return classes
