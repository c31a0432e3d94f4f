"""nnU-Net's label maps of mask files: the names of labels, and the label that is not trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.masks import binary_labels, class_labels, one_channel

IGNORE = "ignore"
"""nnU-Net's name of the label that is not trained on."""

MOST = 255
"""Largest number of classes; labels are written in 8 bits."""


@dataclass(frozen=True)
class LabelRule:
    """How masks become labels.

    >>> LabelRule(foreground="polyp", ignore_outside=True).names()
    {'background': 0, 'polyp': 1, 'ignore': 2}

    Attributes:
        foreground: name of label 1 of a binary mask.
        threshold: of binary masks, foreground is what lies above; None takes the rules of
            :func:`~nnunet_osasis.images.masks.binary_labels`.
        classes: values of masks of several classes, by name, the background first; None for binary masks.
        ignore_outside: give what lies outside the field of view nnU-Net's ignore label.
    """

    foreground: str = "foreground"
    threshold: float | None = None
    classes: Mapping[str, int] | None = None
    ignore_outside: bool = False

    def names(self) -> dict[str, int]:
        """Return the ``labels`` of dataset.json; the ignore label is the highest, as nnU-Net demands."""
        names = [*(self.classes or ("background", self.foreground)), *([IGNORE] if self.ignore_outside else [])]
        return {name: label for label, name in enumerate(dict.fromkeys(names))}

    def foreground_share(self, labels: np.ndarray) -> float:
        """Return the share of pixels of a class other than background, among those whose truth is known."""
        known = labels[labels != self.names().get(IGNORE, -1)]
        return float((known > 0).mean()) if known.size else 0.0

    def convert(self, mask: np.ndarray, field: np.ndarray | None = None) -> np.ndarray:
        """Turn a mask ``(C, *spatial)`` as stored into labels ``(*spatial)``, uint8.

        Args:
            mask: the mask.
            field: the mask of the field of view, needed with ``ignore_outside``.

        Raises:
            OsasisError: the masks are doubtful, or one is missing.
        """
        values = one_channel(mask)
        labels = class_labels(values, self.classes) if self.classes else binary_labels(values, self.threshold)
        if self.ignore_outside:
            if field is None:
                raise OsasisError("--outside-field ignore needs masks of the field of view", found="none")
            labels[binary_labels(one_channel(field), None) == 0] = self.names()[IGNORE]
        return labels


def parse_classes(items: Iterable[str]) -> dict[str, int]:
    """Parse ``["background=0", "disc=128"]``; the name ``ignore`` is nnU-Net's, and its label the last.

    Raises:
        OsasisError: anything but names with values, each once, the background first, 255 at most.
    """
    classes: dict[str, int] = {}
    for item in items:
        name, _, value = item.partition("=")
        is_number = re.fullmatch("[0-9]{1,9}", value)
        if not name or not is_number or name in classes or int(value) in classes.values() or len(classes) == MOST:
            raise OsasisError(
                "--labels takes names with the values of the masks, each once",
                found=item,
                remedy="For example --labels background=0 disc=128 cup=255.",
            )
        classes[name] = int(value)
    if IGNORE in classes:
        classes[IGNORE] = classes.pop(IGNORE)
    if len(classes.keys() - {IGNORE}) < 2 or next(iter(classes)) != "background":
        raise OsasisError(
            "--labels must begin with the background and name another class",
            found=" ".join(classes) or "nothing",
            remedy="For example --labels background=0 disc=128 cup=255.",
        )
    return classes
