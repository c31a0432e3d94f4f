"""Masks, label maps and probability maps from files, and what the numbers in them mean."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.headers import check_size
from nnunet_osasis.images.image import Geometry, LoadedImage
from nnunet_osasis.images.io import read_image
from nnunet_osasis.images.masks import BRIGHT, MANY, NEAR, Values, plane_of
from nnunet_osasis.images.pictures import ORIENTATION_KEY
from nnunet_osasis.runtime.records import read_json

NOTHING = Values(0.0, 1.0, None, False, 0.0, False)
"""What is known of the numbers of probabilities."""


@dataclass(frozen=True)
class FileFacts:
    """What has to be known of all files before the first can be scored.

    Attributes:
        path: the file.
        shape: lengths of the spatial axes.
        numbers: its values.
        geometry: where its voxels lie; None where the file does not say.
        tag: orientation tag that its pixels were turned by.
    """

    path: Path
    shape: tuple[int, ...]
    numbers: Values
    geometry: Geometry | None = None
    tag: int = 1


def values_of(loaded: LoadedImage) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """Return one picture ``(H, W)`` or ``(D, H, W)`` in its own units, and its spacing.

    Raises:
        OsasisError: :func:`nnunet_osasis.images.masks.plane_of` refuses it.
    """
    try:
        array = plane_of(loaded)
    except OsasisError as error:
        raise OsasisError(error.rule, found=f"{error.found} in {loaded.path}", remedy=error.remedy) from None
    return array, spacing_of(loaded.geometry, array.ndim)


def spacing_of(geometry: Geometry | None, axes: int) -> tuple[float, ...] | None:
    """Return the spacing along ``(H, W)`` or ``(D, H, W)``; None where a file has none."""
    return None if geometry is None else geometry.spacing[axes - 1 :: -1]


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
        return FileFacts(path, read_probabilities(path).shape[1:], NOTHING)
    loaded = read_image(path)
    array, _ = values_of(loaded)
    return FileFacts(path, array.shape, Values.of(array), loaded.geometry, loaded.kept.get(ORIENTATION_KEY, 1))


@dataclass(frozen=True)
class Reading:
    """What the numbers of the references mean.

    Attributes:
        classes: labels to score; None for masks of one foreground.
        scale: the foreground's value in masks: 1, 255, or another value of 8-bit masks.
        ignore: label of pixels whose truth is unknown.
        stated: whether the user named the classes.
        known: other labels that predictions may hold.
    """

    classes: tuple[int, ...] | None
    scale: int = 1
    ignore: int | None = None
    stated: bool = False
    known: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """The reading in words, for people."""
        if self.classes is not None:
            kind = f"label maps, classes {', '.join(map(str, self.classes))}"
        elif self.scale == 255:
            kind = f"8-bit masks, foreground above {BRIGHT}"
        else:
            kind = f"masks of 0 and {self.scale}"
        return kind if self.ignore is None else f"{kind}; pixels of label {self.ignore} left out"

    def truth(self, array: np.ndarray) -> np.ndarray:
        """Return the reference as bool (masks) or as it is (label maps)."""
        if self.classes is not None:
            return array
        foreground = array > (BRIGHT if self.scale == 255 else 0)
        return foreground if self.ignore is None else foreground & (array != self.ignore)

    def ignored(self, array: np.ndarray) -> np.ndarray | None:
        """Return where a reference holds the ignore label, None if it has none."""
        return None if self.ignore is None else array == self.ignore


def dataset_labels(*folders: Path) -> tuple[int | None, tuple[int, ...]]:
    """Return the ignore label and all others that nnU-Net's ``dataset.json`` names.

    The first one counts that lies in, beside or above a folder: of references, then of predictions, where nnU-Net
    puts a copy.
    """
    for folder in folders:
        for place in dict.fromkeys(
            [folder, *folder.absolute().parents[:2], folder.resolve(), *folder.resolve().parents[:2]]
        ):
            if (path := place / "dataset.json").is_file():
                labels = read_json(path, what="The dataset.json of the references").get("labels")
                if isinstance(labels, Mapping):
                    ignore = labels.get("ignore")
                    listed = [
                        label for value in labels.values() for label in (value if isinstance(value, list) else [value])
                    ]
                    known = tuple(label for label in listed if type(label) is int and label != ignore)
                    return ignore if type(ignore) is int else None, known
    return None, ()


def read_references(
    facts: Sequence[FileFacts], classes: Sequence[int] | None, *, ignore: int | None = None, known: Sequence[int] = ()
) -> Reading:
    """Decide what the references are: label maps when ``classes`` are given, else by their values.

    0 and 1 are masks, and so are 0 and one larger value from 128 on. A largest value of 255 means 8-bit masks, and then
    every file must look like one. Other whole numbers are labels.

    Args:
        facts: of all references.
        classes: labels that the user names.
        ignore: label of pixels that do not count, unless ``classes`` hold it.
        known: labels that predictions may hold besides the references'.

    Raises:
        OsasisError: for references that may be something else.
    """
    for fact in facts:
        if not fact.numbers.whole or fact.numbers.low < 0:
            raise OsasisError(
                "References must be masks or label maps",
                found=f"values from {fact.numbers.low:g} to {fact.numbers.high:g} in {fact.path}",
                remedy="Binarize them first: a soft truth has no single meaning.",
            )
    if classes is not None:
        return Reading(tuple(classes), ignore=None if ignore in classes else ignore, stated=True)
    numbers = [fact.numbers.without(ignore) for fact in facts]
    high = max(value.high for value in numbers)
    if high <= 1:
        return Reading(None, ignore=ignore)
    if high == 255:
        for fact, value in zip(facts, numbers, strict=True):
            white = value.high == 0 or value.high >= 255 - NEAR
            if not (white if value.is_two_valued else value.is_black_and_white):
                raise OsasisError(
                    "Reference masks must all be 8-bit masks, 0 and 255 or nearly so, where one holds 255",
                    found=f"the values {value.shown} in {fact.path}",
                    remedy="Name the labels with --classes, or bring all masks to one convention.",
                )
        return Reading(None, 255, ignore)
    if (odd := next((fact for fact in facts if fact.numbers.distinct is None), None)) is not None:
        raise OsasisError(
            "References must be masks (0/1, 0/255) or label maps",
            found=f"{MANY} or more different values up to {odd.numbers.high:g} in {odd.path}",
            remedy="Name the labels with --classes, or binarize the masks.",
        )
    labels = sorted({label for value in numbers for label in value.foreground})
    if len(labels) == 1 and labels[0] > BRIGHT:
        return Reading(None, labels[0], ignore)
    if len(labels) == 2 and all(value.low > 0 for value in numbers):
        raise OsasisError(
            "0 must be the background of masks",
            found=f"only the values {labels[0]} and {labels[1]}, as in {facts[0].path}",
            remedy=f"Give --classes {labels[1]} to score one of them, or --classes {labels[0]} {labels[1]}.",
        )
    return Reading(tuple(labels), ignore=ignore, known=tuple(known))


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
    highest, lowest = max(facts, key=lambda fact: fact.numbers.high), min(facts, key=lambda fact: fact.numbers.low)
    if scale is None and all(fact.numbers.is_two_valued for fact in facts):
        value = _one_value({fact.numbers.foreground[0]: fact for fact in facts if fact.numbers.foreground})
        if value in (1, reading.scale) or value > BRIGHT:
            return value
    divisor = scale if scale is not None else (255 if highest.numbers.high > 1 else 1)
    odd = next((fact for fact in (lowest, highest) if fact.numbers.low < 0 or fact.numbers.high > divisor), None)
    if odd is None and divisor == 255:
        odd = next((fact for fact in facts if not fact.numbers.whole), None)
    if odd is not None:
        raise OsasisError(
            "Predictions must be masks or maps in [0, 1], or 8-bit maps in [0, 255]",
            found=f"values from {odd.numbers.low:g} to {odd.numbers.high:g} in {odd.path}",
            remedy="Apply the sigmoid to logits; store one kind of map in one folder.",
        )
    if scale is None and 1 < highest.numbers.high <= BRIGHT:
        raise OsasisError(
            "It must be clear whether predictions are label maps or faint 8-bit maps",
            found=f"a largest value of {highest.numbers.high:g} in all of {highest.path.parent}, for references that "
            "are masks",
            remedy="Give --scale 255 for maps, or --classes 1 to score one label.",
        )
    if scale is None and divisor == 255:
        _require_maps(facts, reading, highest)
    return divisor


def _one_value(files: Mapping[int, FileFacts]) -> int:
    """Return the foreground of a folder of masks; refuse several that are not all nearly white."""
    low, high = min(files, default=1), max(files, default=1)
    if low != high and low < 255 - NEAR:
        raise OsasisError(
            "The masks of one folder must have one foreground value",
            found=f"{low} in {files[low].path} and {high} in {files[high].path}",
            remedy="Bring them to one convention, or give --scale 255 if the first is a faint map.",
        )
    return high


def _require_labels(facts: Sequence[FileFacts], reading: Reading, classes: tuple[int, ...]) -> None:
    """Refuse predictions that are no label maps, or whose labels are not the references'."""
    maps = [fact for fact in facts if fact.path.suffix != ".npz"]
    odd = next((fact for fact in maps if not fact.numbers.whole or fact.numbers.low < 0), None)
    if odd is not None:
        raise OsasisError(
            "Predictions for label maps must be label maps",
            found=f"values from {odd.numbers.low:g} to {odd.numbers.high:g} in {odd.path}",
            remedy="For probabilities use nnU-Net's .npz files and --probabilities.",
        )
    for fact in maps:
        masks_of_255 = fact.numbers.high == 255 and max(classes, default=0) <= BRIGHT
        strange = {*fact.numbers.foreground} - {*classes, *reading.known}
        if masks_of_255 or (not reading.stated and (strange or fact.numbers.distinct is None)):
            label = max(strange, default=int(fact.numbers.high))
            raise OsasisError(
                "Predictions must use the references' labels",
                found=f"{label} in {fact.path} for the classes {', '.join(map(str, classes))}",
                remedy="Store masks as label maps: 1 for the first class. --classes scores the labels as they are.",
            )


def _require_maps(facts: Sequence[FileFacts], reading: Reading, highest: FileFacts) -> None:
    """Refuse, among 8-bit maps, masks of a dark value, and label maps that hold an odd value of the references."""
    dark = next((f for f in facts if f.numbers.is_two_valued and 0 < f.numbers.high <= BRIGHT), None)
    if dark is not None:
        raise OsasisError(
            "It must be clear whether a file is a mask or a faint 8-bit map",
            found=f"the values {dark.numbers.shown} in {dark.path}, beside {highest.numbers.high:g} in {highest.path}",
            remedy="Bring them to one convention, or give --scale 255 if it is a faint map.",
        )
    several = next((f for f in facts if reading.scale in f.numbers.foreground[:-1]), None)
    if several is not None and reading.scale != 255:
        raise OsasisError(
            "It must be clear whether predictions are label maps or 8-bit maps",
            found=f"the values {several.numbers.shown} in {several.path}, for references of {reading.scale}",
            remedy=f"Give --scale 255 for maps, or --classes {reading.scale} to score one label.",
        )
