"""What a mask means, for all commands: which numbers are foreground, and which pixel of the image each belongs to.

0 is the background, whatever share of the picture it covers. Of two values 0 and v, v is the foreground. An 8-bit mask
in black and white may have soft edges and JPEG noise; it is cut at half its white. Other whole numbers are classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import LoadedImage, onto_grid
from nnunet_osasis.images.pictures import ALPHA_KEY, INDEX_KEY, ORIENTATION_KEY, TURNED

BRIGHT = 127
"""Gray level above which the foreground of an 8-bit mask with soft edges or JPEG noise lies."""

NEAR = 32
"""Distance from 0 or 255, in gray levels, within which a pixel of an 8-bit mask counts as black or white."""

MOST_BETWEEN = 0.05
"""Largest share of pixels between black and white that soft edges may have."""

LEVELS = 16
"""Largest number of different values that are taken for classes; soft edges and JPEG noise have more."""

MANY = 128
"""A label map has fewer different values than this; a gray picture has more."""


@dataclass(frozen=True)
class Values:
    """What has to be known of a mask's numbers to say what they mean.

    Attributes:
        low: the smallest.
        high: the largest.
        distinct: the different ones, ascending, when they are whole numbers and fewer than ``MANY``.
        whole: whether all are whole numbers.
        between: share of pixels further than ``NEAR`` from both 0 and 255.
        in_bytes: whether they are stored in unsigned bytes.
        at_edges: whether every pixel counted by ``between`` touches a black and a white one, in an 8-bit mask.
    """

    low: float
    high: float
    distinct: tuple[int, ...] | None
    whole: bool
    between: float
    in_bytes: bool
    at_edges: bool = False

    @classmethod
    def of(cls, mask: np.ndarray) -> Values:
        """Look at the numbers of a mask."""
        low, high = mask.min().item(), mask.max().item()
        if mask.dtype == np.uint8:
            counts = np.bincount(mask.ravel(), minlength=256)
            values, whole = np.flatnonzero(counts), True
            between = float(counts[NEAR + 1 : 255 - NEAR].sum() / mask.size)
        else:
            whole = mask.dtype.kind in "bui" or bool((mask == np.rint(mask)).all())
            values = np.unique(mask) if whole else np.arange(MANY)
            between = float(((mask > NEAR) & (mask < 255 - NEAR)).mean())
        distinct = tuple(int(value) for value in values) if len(values) < MANY else None
        soft = mask.dtype == np.uint8 and 0 < between <= MOST_BETWEEN
        return cls(low, high, distinct, whole, between, mask.dtype == np.uint8, soft and _at_edges(mask))

    @property
    def shown(self) -> str:
        """The first of them, for messages."""
        if self.distinct is None:
            return f"{self.low:g} to {self.high:g}"
        return ", ".join(map(str, self.distinct[:6])) + (", ..." if len(self.distinct) > 6 else "")

    @property
    def foreground(self) -> tuple[int, ...]:
        """The distinct values above 0."""
        return tuple(value for value in self.distinct or () if value > 0)

    @property
    def is_two_valued(self) -> bool:
        """Whether 0 and at most one larger value occur."""
        return self.distinct is not None and self.low >= 0 and len(self.distinct) <= (2 if self.low == 0 else 1)

    @property
    def is_black_and_white(self) -> bool:
        """Whether an 8-bit mask holds black and white with soft edges or JPEG noise.

        Few values away from edges, and small ones beside 255, are none: they may be classes and an ignored label.
        """
        if not self.in_bytes or self.high <= BRIGHT or NEAR < self.low < 255 - NEAR:
            return False
        if self.low > NEAR:  # white all over
            return True
        if self.distinct is not None and len(self.distinct) <= 2:
            return self.low == 0
        grays = [value for value in self.distinct or () if value < 255]
        if self.between == 0:
            return self.distinct is None or grays[-1] >= 255 - NEAR
        shaded = self.distinct is None or len(self.distinct) > LEVELS or self.at_edges
        return shaded and self.between <= MOST_BETWEEN

    @property
    def one_foreground(self) -> int | None:
        """The value of the foreground, 255 for near white; None where there is none, or there are several."""
        if self.is_black_and_white and self.high >= 255 - NEAR:
            return 255
        return self.foreground[0] if self.is_two_valued and self.foreground else None

    def without(self, label: int | None) -> Values:
        """Return the values but one."""
        if label is None or label not in (self.distinct or ()):
            return self
        kept = tuple(value for value in self.distinct or () if value != label)
        return replace(self, distinct=kept, low=min(kept, default=0), high=max(kept, default=0))


def _at_edges(mask: np.ndarray) -> bool:
    black = ndimage.minimum_filter(mask, 3) <= NEAR
    white = ndimage.maximum_filter(mask, 3) >= 255 - NEAR
    return not ((mask > NEAR) & (mask < 255 - NEAR) & ~(black & white)).any()


def one_channel(mask: np.ndarray) -> np.ndarray:
    """Return the first channel ``(*spatial)`` of a mask ``(C, *spatial)`` whose channels say the same.

    They may differ by JPEG noise in an 8-bit mask of black and white; else they must be equal.

    Raises:
        OsasisError: the mask holds no numbers, or its channels differ (colors, one-hot classes).
    """
    if mask.dtype.kind not in "uifb":
        raise OsasisError(
            "A mask must hold numbers", found=f"dtype {mask.dtype}", remedy="Save it as a picture or volume of labels."
        )
    if len(mask) == 1 or (mask == mask[:1]).all():
        return mask[0]
    noisy = mask.dtype == np.uint8 and mask.max() > BRIGHT and len(np.unique(mask)) > LEVELS
    if not noisy or int(np.ptp(mask.astype(np.int16), axis=0).max()) > NEAR:
        raise OsasisError(
            "A mask must hold one number per pixel",
            found=f"{len(mask)} channels that differ (a colored picture, or one channel per class)",
            remedy="Convert its colors or channels to numbers first.",
        )
    return mask[0]


def plane_of(mask: LoadedImage) -> np.ndarray:
    """Return the numbers ``(*spatial)`` of a mask's file.

    A palette of colors stands for its indices (PASCAL VOC). Where one color is drawn on a transparent ground, the
    opacity is the mask.

    Raises:
        OsasisError: as :func:`one_channel`, and where colors and opacity say different things.
    """
    array, alpha = mask.array, mask.kept.get(ALPHA_KEY)
    if INDEX_KEY in mask.kept:
        return np.asarray(mask.kept[INDEX_KEY])
    if alpha is None:
        return one_channel(array)
    colors = array.reshape(len(array), -1)
    drawn = alpha.ravel() > 0
    if (colors == colors[:, :1]).all():
        return np.asarray(alpha)
    if (colors.any(axis=0) != drawn).any():
        raise OsasisError(
            "A mask's colors and its opacity must say the same",
            found="other pixels that are transparent than black",
            remedy="Save the mask without an alpha channel.",
        )
    inside = colors[:, drawn]
    return np.asarray(alpha) if (inside == inside[:, :1]).all() else one_channel(array)


def mask_on(image: LoadedImage, mask: LoadedImage, *, what: str = "mask") -> np.ndarray:
    """Return the numbers ``(*spatial)`` of a mask, each at its pixel of ``image``.

    Args:
        image: the image, as read.
        mask: the mask, as read.
        what: name of the mask in messages.

    Raises:
        OsasisError: as :func:`plane_of`; the two have other sizes or geometries, or were turned by other tags.
    """
    try:
        values = onto_grid(replace(mask, array=plane_of(mask)[None]), image, what=("Image", what))[0]
    except OsasisError as error:
        place = "" if str(mask.path) in str(error.found) else f" in {mask.path}"
        raise OsasisError(error.rule, found=f"{error.found}{place}", remedy=error.remedy) from None
    sizes = image.array.shape[1:], values.shape
    tags = tuple(loaded.kept.get(ORIENTATION_KEY, 1) for loaded in (image, mask))
    require_same_turn(tags, sizes, mask.path, ("Image", what))
    if sizes[0] != sizes[1]:
        raise OsasisError(
            f"Image and {what} must have the same size",
            found=f"{sizes[0]} and {sizes[1]} in {mask.path}",
            remedy=f"Resample the {what} to the image's grid with nearest-neighbor interpolation.",
        )
    return values


def require_same_turn(
    tags: tuple[int, ...], sizes: tuple[tuple[int, ...], ...], path: object, what: tuple[str, str]
) -> None:
    """Refuse a pair of which tags (EXIF) turned only one, unless the sizes show that the other lies as it is turned to.

    Args:
        tags: orientation of image and mask, 1 to 8.
        sizes: their sizes, when turned.
        path: file of the mask.
        what: names of the two in messages.
    """
    turned_by_hand = min(tags) == 1 and max(tags) in TURNED and sizes[0] == sizes[1] and len(set(sizes[0])) > 1
    if tags[0] != tags[1] and not turned_by_hand:
        raise OsasisError(
            f"{what[0]} and {what[1]} must have the same orientation",
            found=f"the orientation tags (EXIF) {tags[0]} and {tags[1]}, sizes {sizes[0]} and {sizes[1]} when turned by"
            f" them, in {path}",
            remedy=f"Turn the pixels of the {what[1]} as the {what[0].lower()}'s tag says, or remove both tags.",
        )


def binary_labels(mask: np.ndarray, threshold: float | None) -> np.ndarray:
    """Turn a mask of one foreground into 0 and 1, uint8.

    With a threshold, foreground is what lies above. Without one: of two values 0 and v, v is foreground; an 8-bit mask
    with soft edges or JPEG noise (at most 5 % of the pixels further than 32 from both 0 and 255, in more than 16 values
    or between black and white neighbors only) is cut above 127.

    Raises:
        OsasisError: all else, as few values may be classes.
    """
    if threshold is not None:
        return (mask > threshold).astype(np.uint8)
    values = Values.of(mask)
    if values.is_two_valued:
        return (mask != 0).astype(np.uint8)
    if values.is_black_and_white:
        return (mask > BRIGHT).astype(np.uint8)
    count = "many" if values.distinct is None else str(len(values.distinct))
    raise OsasisError(
        "A binary mask must hold two values, 0 and another, or nearly so",
        found=f"{count} values ({values.shown}), {100 * values.between:.1f} % of the pixels between black and white",
        remedy="Name the classes (--labels background=0 disc=128 cup=255), or the lower of two as the background, or "
        "state --threshold.",
    )


def label_map(mask: np.ndarray) -> np.ndarray:
    """Turn a mask of any kind into labels, 0 for the background: where lesions are, for the structure gate.

    Raises:
        OsasisError: the mask is a gray picture, a map of probabilities, or has labels below 0.
    """
    values = Values.of(mask)
    if values.is_two_valued or values.is_black_and_white:
        return binary_labels(mask, None)
    if values.distinct is None or not values.whole or values.low < 0:
        raise OsasisError(
            "A mask must hold labels, 0 for the background",
            found=f"values from {values.low:g} to {values.high:g}",
            remedy="Binarize it, or leave --masks out.",
        )
    return mask


def class_labels(mask: np.ndarray, classes: Mapping[str, int]) -> np.ndarray:
    """Turn a mask of several classes into their numbers 0, 1, 2, ... in the order of ``classes``, uint8.

    Raises:
        OsasisError: the mask holds a value of no class.
    """
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
    """Return the foreground's value in a mask of one foreground, else None."""
    return Values.of(mask).one_foreground


def require_one_foreground(values: Iterable[int | None], files: Iterable[object] = ()) -> None:
    """Refuse binary masks that disagree about :func:`foreground_value`: they may be classes of one label map.

    Args:
        values: the foreground's value of every mask.
        files: their files, for the message.

    Raises:
        OsasisError: two different values; names a file of each.
    """
    values = list(values)
    distinct = sorted({value for value in values if value is not None})
    if len(distinct) > 1:
        named = list(zip(values, files, strict=False))
        places = [f"{value} in {next(file for v, file in named if v == value)}" for value in distinct[:2] if named]
        raise OsasisError(
            "The foreground of binary masks must have one value in all of them",
            found=f"the values {', '.join(map(str, distinct[:6]))}" + (f" ({', '.join(places)})" if places else ""),
            remedy="If they are classes, name them (--labels background=0 a=1 b=2); else state --threshold 0.",
        )
