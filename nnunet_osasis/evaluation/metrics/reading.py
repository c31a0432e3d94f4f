"""Masks, label maps and probability maps from files, and what the numbers in them mean."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.headers import check_size
from nnunet_osasis.images.image import LoadedImage
from nnunet_osasis.images.io import read_image
from nnunet_osasis.images.masks import LEVELS, MOST_BETWEEN, NEAR
from nnunet_osasis.runtime.records import read_json

MANY = 32
"""A label map has fewer different values than this; a gray picture has more."""

FOREGROUND_ABOVE = 128
"""Gray level above which 8-bit reference masks, which may be anti-aliased, are foreground (as in PySODMetrics)."""


@dataclass(frozen=True)
class FileFacts:
    """What has to be known of all files before the first can be scored.

    Attributes:
        path: the file.
        shape: lengths of the spatial axes.
        spacing: size of a pixel along them; None where the file has none.
        low: its smallest value.
        high: its largest value.
        values: its different values, ascending, when they are whole numbers and fewer than ``MANY``.
        whole: whether all values are whole numbers.
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

    @property
    def shown(self) -> str:
        """The first of its values, for messages."""
        values = self.values or ()
        return ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")

    def without(self, label: int | None) -> FileFacts:
        """Return the facts of the pixels that do not have a label."""
        if self.values is None or label not in self.values:
            return self
        values = tuple(value for value in self.values if value != label)
        return replace(self, values=values, low=min(values, default=0), high=max(values, default=0))


def values_of(loaded: LoadedImage) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """Return one picture ``(H, W)`` or ``(D, H, W)`` in its own units, and its spacing.

    Three equal channels count as one.

    Raises:
        OsasisError: the picture is in true color.
    """
    array, path = loaded.array, loaded.path
    if len(array) > 1 and not (array == array[:1]).all():
        raise OsasisError(
            "A mask or map must have one channel", found=f"{len(array)} different ones in {path}", remedy="Convert it."
        )
    if loaded.geometry is None:
        return array[0], None
    return array[0], loaded.geometry.spacing[array[0].ndim - 1 :: -1]


def read_probabilities(path: Path) -> np.ndarray:
    """Return nnU-Net's ``--save_probabilities`` array: ``(classes, H, W)`` or ``(classes, D, H, W)`` in [0, 1]."""
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
    """Read a file and return its size and range. Raises ``OsasisError`` as the readers do."""
    if path.suffix == ".npz":
        probabilities = read_probabilities(path)
        return FileFacts(path, probabilities.shape[1:], None, 0.0, 1.0, None, False)
    array, spacing = values_of(read_image(path))
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
        scale: the foreground's value in masks: 1, 255, or another value of 8-bit masks.
        ignore: label of pixels whose truth is unknown.
        stated: whether the user named the classes.
    """

    classes: tuple[int, ...] | None
    scale: int = 1
    ignore: int | None = None
    stated: bool = False

    @property
    def text(self) -> str:
        """The reading in words, for people."""
        if self.classes is not None:
            kind = f"label maps, classes {', '.join(map(str, self.classes))}"
        elif self.scale == 255:
            kind = f"8-bit masks, foreground above {FOREGROUND_ABOVE}"
        else:
            kind = f"masks of 0 and {self.scale}"
        return kind if self.ignore is None else f"{kind}; pixels of label {self.ignore} left out"

    def truth(self, array: np.ndarray) -> np.ndarray:
        """Return the reference as bool (masks) or as it is (label maps)."""
        if self.classes is not None:
            return array
        foreground = array > (FOREGROUND_ABOVE if self.scale == 255 else 0)
        return foreground if self.ignore is None else foreground & (array != self.ignore)

    def ignored(self, array: np.ndarray) -> np.ndarray | None:
        """Return where a reference holds the ignore label, None if it has none."""
        return None if self.ignore is None else array == self.ignore


def ignore_label(references: Path) -> int | None:
    """Return the label that nnU-Net's ``dataset.json``, in or beside a folder of references, calls ``ignore``."""
    folder = references.resolve()
    for path in (folder / "dataset.json", folder.parent / "dataset.json"):
        if path.is_file():
            labels = read_json(path, what="The dataset.json of the references").get("labels")
            label = labels.get("ignore") if isinstance(labels, Mapping) else None
            return label if type(label) is int else None
    return None


def read_references(facts: Sequence[FileFacts], classes: Sequence[int] | None, *, ignore: int | None = None) -> Reading:
    """Decide what the references are: label maps when ``classes`` are given, else by their values.

    0 and 1 are masks, and so are 0 and one larger value from 128 on. A largest value of 255 means 8-bit masks, and then
    every file must look like one. Other whole numbers are labels.

    Args:
        facts: of all references.
        classes: labels that the user names.
        ignore: label of pixels that do not count, unless ``classes`` hold it.

    Raises:
        OsasisError: for references that may be something else.
    """
    for fact in facts:
        if not fact.whole or fact.low < 0:
            raise OsasisError(
                "References must be masks or label maps",
                found=f"values from {fact.low:g} to {fact.high:g} in {fact.path}",
                remedy="Binarize them first: a soft truth has no single meaning.",
            )
    if classes is not None:
        return Reading(tuple(classes), ignore=None if ignore in classes else ignore, stated=True)
    facts = [fact.without(ignore) for fact in facts]
    high = max(fact.high for fact in facts)
    if high <= 1:
        return Reading(None, ignore=ignore)
    if high == 255:
        for fact in facts:
            _require_8_bit_mask(fact)
        return Reading(None, 255, ignore)
    odd = next((fact for fact in facts if fact.values is None), None)
    if odd is not None:
        raise OsasisError(
            "References must be masks (0/1, 0/255) or label maps",
            found=f"{MANY} or more different values up to {odd.high:g} in {odd.path}",
            remedy="Name the labels with --classes, or binarize the masks.",
        )
    labels = sorted(_foreground_values(facts))
    if len(labels) == 1 and FOREGROUND_ABOVE <= labels[0] < 255:
        return Reading(None, labels[0], ignore)
    return Reading(tuple(labels), ignore=ignore)


def _foreground_values(facts: Sequence[FileFacts]) -> set[int]:
    return {value for fact in facts for value in fact.values or () if value > 0}


def _require_8_bit_mask(fact: FileFacts) -> None:
    """Refuse a file of few values that 8-bit masks do not have: it would silently lose classes or all its foreground.

    Soft edges and JPEG noise pass, by the rule of :func:`nnunet_osasis.images.masks.binary_labels`; so do few values
    that are all near 0 or 255, on both sides, as JPEG's are.
    """
    values = fact.values
    if not values:
        return
    if len(values) <= 2:
        fits = values[-1] == 0 or values[-1] > FOREGROUND_ABOVE
    elif fact.between > 0:
        fits = len(values) > LEVELS and fact.between <= MOST_BETWEEN
    else:  # small numbers alone are labels, 255 beside them is what some datasets ignore
        fits = max(v for v in values if v < 255) > FOREGROUND_ABOVE
    if not fits:
        raise OsasisError(
            "Reference masks must all be 8-bit masks, 0 and 255 or nearly so, where one holds 255",
            found=f"the values {fact.shown} in {fact.path}",
            remedy="Name the labels with --classes, or bring all masks to one convention.",
        )


def prediction_scale(facts: Sequence[FileFacts], reading: Reading, *, scale: int | None = None) -> int:
    """Return what a method's predictions are divided by, one for the whole folder, so that a faint map stays faint.

    Args:
        facts: of all predictions of the method.
        reading: what the references are.
        scale: 1 or 255 as the user states it; None: told from the files.

    Raises:
        OsasisError: values outside [0, 1] or [0, 255], a scale that cannot be told, files of two scales, maps where the
            references are label maps, or other labels than the references'.
    """
    if reading.classes is not None:
        _require_labels(facts, reading, reading.classes)
        return 1
    masks = all(fact.values is not None and fact.low >= 0 for fact in facts)
    if scale is None and masks and _foreground_values(facts) == {reading.scale}:
        return reading.scale
    highest, lowest = max(facts, key=lambda fact: fact.high), min(facts, key=lambda fact: fact.low)
    divisor = scale if scale is not None else (255 if highest.high > 1 else 1)
    odd = next((fact for fact in (lowest, highest) if fact.low < 0 or fact.high > divisor), None)
    if odd is None and divisor == 255:
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
    if scale is None and divisor == 255:
        _require_one_scale(facts, reading)
    return divisor


def _require_labels(facts: Sequence[FileFacts], reading: Reading, classes: tuple[int, ...]) -> None:
    """Refuse predictions that are no label maps, or whose labels are not the references'."""
    odd = next((fact for fact in facts if not (fact.whole and fact.low >= 0) and fact.path.suffix != ".npz"), None)
    if odd is not None:
        raise OsasisError(
            "Predictions for label maps must be label maps",
            found=f"values from {odd.low:g} to {odd.high:g} in {odd.path}",
            remedy="For probabilities use nnU-Net's .npz files and --probabilities.",
        )
    highest, labels = max(facts, key=lambda fact: fact.high), _foreground_values(facts)
    masks_of_255 = highest.high == 255 and max(classes, default=0) < FOREGROUND_ABOVE
    other_label = not reading.stated and len(classes) == len(labels) == 1 and labels != set(classes)
    if masks_of_255 or other_label:
        raise OsasisError(
            "Predictions must use the references' labels",
            found=f"{highest.high:g} in {highest.path} for the classes {', '.join(map(str, classes))}",
            remedy="Store masks as label maps: 1 for the first class. --classes scores the labels as they are.",
        )


def _require_one_scale(facts: Sequence[FileFacts], reading: Reading) -> None:
    """Refuse a folder of two-valued files of both 1 and 255, and files of several labels beside odd references."""
    hard = {fact.high: fact for fact in facts if fact.values and len(set(fact.values) - {0}) == 1}
    white = next((fact for high, fact in hard.items() if high >= 255 - NEAR), None)
    if 1 in hard and white is not None and all(fact.values and len(set(fact.values) - {0}) <= 1 for fact in facts):
        raise OsasisError(
            "The masks of one folder must have one foreground value",
            found=f"1 in {hard[1].path} and {white.high:g} in {white.path}",
            remedy="Bring them to one convention, or give --scale 255 if the first is a faint map.",
        )
    several = next((f for f in facts if f.values and reading.scale in f.values and len(set(f.values) - {0}) > 1), None)
    if several is not None and reading.scale != 255:
        raise OsasisError(
            "It must be clear whether predictions are label maps or 8-bit maps",
            found=f"the values {several.shown} in {several.path}, for references of {reading.scale}",
            remedy=f"Give --scale 255 for maps, or --classes {reading.scale} to score one label.",
        )
