"""Masks, label maps and probability maps from files, and what the numbers in them mean."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.headers import check_size
from nnunet_osasis.images.io import read_image
from nnunet_osasis.images.masks import LEVELS, MOST_BETWEEN, NEAR

MANY = 32  # a label map has fewer different values than this; a grey picture has more

FOREGROUND_ABOVE = 128  # of 8-bit reference masks, which may be anti-aliased (PySODMetrics' and PraNet's rule)


@dataclass(frozen=True)
class FileFacts:
    """What has to be known of all files before the first can be scored.

    Attributes:
        path: the file.
        shape: spatial axes.
        spacing: along them; None where the file has none.
        low, high: range of its values.
        values: its different values when they are whole numbers and fewer than ``MANY``.
        whole: all values are whole numbers.
        between: share of pixels further than ``NEAR`` from both 0 and 255: neither black nor white in an 8-bit mask.
    """

    path: Path
    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    low: float
    high: float
    values: tuple[int, ...] | None
    whole: bool
    between: float = 0.0


def read_values(path: Path) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """One picture ``(H, W)`` or ``(D, H, W)`` in its own units, and its spacing.

    Three equal channels count as one. Raises ``OsasisError`` for unreadable files, NaN and true colour.
    """
    loaded = read_image(path)
    array = loaded.array
    if len(array) > 1 and not (array == array[:1]).all():
        raise OsasisError(
            "A mask or map must have one channel", found=f"{len(array)} different ones in {path}", remedy="Convert it."
        )
    geometry = loaded.geometry
    spacing = geometry.spacing[::-1] if geometry is not None else None
    return array[0], spacing[-array[0].ndim :] if spacing is not None else None


def read_probabilities(path: Path) -> np.ndarray:
    """nnU-Net's ``--save_probabilities`` array: ``(classes, H, W)`` or ``(classes, D, H, W)`` in [0, 1]."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("probabilities.npy") as stream:
            _check_declared(stream, path)
        with np.load(path, allow_pickle=False) as stored:
            values = stored["probabilities"].astype(np.float64)
    except OsasisError:
        raise
    except (OSError, KeyError, ValueError, EOFError, ArithmeticError, SyntaxError, *_BROKEN) as error:
        raise OsasisError(
            "Probabilities must be an .npz file of nnU-Net's --save_probabilities",
            found=f"{path}: {error or type(error).__name__}",
            remedy="Predict this case again.",
        ) from error
    if not (values.ndim in (3, 4) and values.size and values.min() >= 0 and values.max() <= 1 + 1e-4):
        raise OsasisError("Probabilities must lie in [0, 1]", found=f"shape {values.shape} or other values in {path}")
    return np.minimum(values[:, 0] if values.ndim == 4 and values.shape[1] == 1 else values, 1)


_BROKEN = (zipfile.BadZipFile, zlib.error, NotImplementedError, TypeError, MemoryError)


def _check_declared(stream: IO[bytes], path: Path) -> None:
    """Look at the size and type an array's header announces, before memory is taken for them."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    check_size(shape, path)
    if dtype.kind not in "fiub":
        raise ValueError(f"dtype {dtype}")


def survey_file(path: Path) -> FileFacts:
    """Read a file for its size and range. Raises ``OsasisError`` as the readers do."""
    if path.suffix == ".npz":
        probabilities = read_probabilities(path)
        return FileFacts(path, probabilities.shape[1:], None, 0.0, 1.0, None, False)
    array, spacing = read_values(path)
    whole = array.dtype.kind in "bui" or bool((array == np.rint(array)).all())
    values = np.unique(array) if whole else np.empty(0)
    few = whole and len(values) < MANY
    return FileFacts(
        path, array.shape, spacing, float(array.min()), float(array.max()),
        tuple(int(v) for v in values) if few else None, whole,
        float(((array > NEAR) & (array < 255 - NEAR)).mean()),
    )  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What the numbers of the references mean.

    Attributes:
        classes: labels to score; None for masks of one foreground.
        scale: the references' foreground value where there are no classes: 1 or 255.
    """

    classes: tuple[int, ...] | None
    scale: int = 1

    @property
    def text(self) -> str:
        """For people."""
        if self.classes is not None:
            return f"label maps, classes {', '.join(map(str, self.classes))}"
        return "masks of 0 and 1" if self.scale == 1 else f"8-bit masks, foreground above {FOREGROUND_ABOVE}"

    def truth(self, array: np.ndarray) -> np.ndarray:
        """The reference as bool (masks) or as it is (label maps)."""
        if self.classes is not None:
            return array
        return array > (FOREGROUND_ABOVE if self.scale == 255 else 0)


def read_references(facts: Sequence[FileFacts], classes: Sequence[int] | None) -> Reading:
    """Decide what the references are: label maps when ``classes`` are given, else by their values.

    0 and 1 are masks; a largest value of 255 means 8-bit masks, and then every file must look like one; other whole
    numbers are labels. Raises ``OsasisError`` for what may be something else.
    """
    for fact in facts:
        if not fact.whole or fact.low < 0:
            raise OsasisError(
                "References must be masks or label maps",
                found=f"values from {fact.low:g} to {fact.high:g} in {fact.path}",
                remedy="Binarise them first: a soft truth has no single meaning.",
            )
    if classes is not None:
        return Reading(tuple(classes))
    high = max(fact.high for fact in facts)
    if high <= 1:
        return Reading(None)
    if high == 255:
        for fact in facts:
            _require_8_bit_mask(fact)
        return Reading(None, 255)
    odd = next((fact for fact in facts if fact.values is None), None)
    if odd is not None:
        raise OsasisError(
            "References must be masks (0/1, 0/255) or label maps",
            found=f"{MANY} or more different values up to {odd.high:g} in {odd.path}",
            remedy="Name the labels with --classes, or binarise the masks.",
        )
    return Reading(tuple(sorted({v for fact in facts for v in fact.values or () if v > 0})))


def _require_8_bit_mask(fact: FileFacts) -> None:
    """Refuse a file of few values that 8-bit masks do not have: it would silently lose classes or all its foreground.

    Soft edges and JPEG noise pass, by the rule of :func:`nnunet_osasis.images.masks.binary_labels`; so do few values
    that are all near 0 or 255, on both sides, as JPEG's are.
    """
    values = fact.values
    if values is None:
        return
    if len(values) <= 2:
        fits = values[-1] == 0 or values[-1] > FOREGROUND_ABOVE
    elif fact.between > 0:
        fits = len(values) > LEVELS and fact.between <= MOST_BETWEEN
    else:  # small numbers alone are labels, 255 beside them is what some datasets ignore
        fits = max(v for v in values if v < 255) > FOREGROUND_ABOVE
    if not fits:
        shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
        raise OsasisError(
            "Reference masks must all be 8-bit masks, 0 and 255 or nearly so, where one holds 255",
            found=f"the values {shown} in {fact.path}",
            remedy="Name the labels with --classes, or bring all masks to one convention.",
        )


def prediction_scale(facts: Sequence[FileFacts], reading: Reading, *, scale: int | None = None) -> int:
    """What a method's predictions are divided by: 1 or 255, one for the whole folder, so that a faint map stays faint.

    Raises ``OsasisError`` for values outside [0, 1] or [0, 255], for a scale that cannot be told, and for
    maps where the references are label maps.
    """
    highest = max(facts, key=lambda fact: fact.high)
    lowest = min(facts, key=lambda fact: fact.low)
    if reading.classes is not None:
        odd = next((fact for fact in facts if not (fact.whole and fact.low >= 0)), None)
        if odd is not None and odd.path.suffix != ".npz":
            raise OsasisError(
                "Predictions for label maps must be label maps",
                found=f"values from {odd.low:g} to {odd.high:g} in {odd.path}",
                remedy="For probabilities use nnU-Net's .npz files and --probabilities.",
            )
        if highest.high == 255 and max(reading.classes, default=0) < FOREGROUND_ABOVE:
            raise OsasisError(
                "Predictions must use the references' labels",
                found=f"255 in {highest.path} for the classes {', '.join(map(str, reading.classes))}",
                remedy="Store masks as label maps: 1 for the first class.",
            )
        return 1
    found = scale if scale is not None else (255 if highest.high > 1 else 1)
    odd = next((fact for fact in (lowest, highest) if fact.low < 0 or fact.high > found), None)
    if odd is None and found == 255:
        odd = next((fact for fact in facts if not fact.whole), None)
    if odd is not None:
        raise OsasisError(
            "Predictions must be masks or maps in [0, 1], or 8-bit maps in [0, 255]",
            found=f"values from {odd.low:g} to {odd.high:g} in {odd.path}",
            remedy="Apply the sigmoid to logits; store one kind of map in one folder.",
        )
    if scale is None and 1 < highest.high < FOREGROUND_ABOVE:
        raise OsasisError(
            "It must be clear whether predictions are label maps or faint 8-bit maps",
            found=f"a largest value of {highest.high:g} in all of {highest.path.parent}, for references that are masks",
            remedy="Give --scale 255 for maps, or --classes 1 to score one label.",
        )
    return found
