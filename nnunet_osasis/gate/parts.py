"""Large pictures are judged part by part: memory does not grow with them, and their scores are the worst part's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise, product
from typing import Any

import numpy as np

from nnunet_osasis.gate.scores import StructureScores

PART_PX = 2**21
"""Most pixels that are judged as one picture: one of 1920 x 1080 is, larger ones are cut."""

OVERLAP_PX = 64
"""Pixels that neighboring parts of a slice share, so that no small thing is cut in all of them."""

FLAT = 0.02
"""Share of the whole picture's variance below which a part shows nothing that could be judged by itself."""

Place = tuple[slice, ...]
"""A part of ``(C, H, W)`` or ``(C, D, H, W)``, all channels of it."""


def parts_of(shape: Sequence[int]) -> list[Place]:
    """Cut ``(C, H, W)`` or ``(C, D, H, W)`` into parts of ``PART_PX`` at most: blocks of slices, else parts of one.

    >>> parts_of((3, 500, 600))
    [(slice(None, None, None), slice(0, 500, None), slice(0, 600, None))]
    >>> [place[1] for place in parts_of((1, 40, 512, 512))][:2]
    [slice(0, 8, None), slice(8, 16, None)]
    """
    *depth, height, width = shape[1:]
    side = int(PART_PX**0.5)
    if height * width <= PART_PX:
        whole = (slice(0, height), slice(0, width))
        blocks = [_spans(size, max(1, PART_PX // (height * width)), 0) for size in depth]
        return [(slice(None), *place, *whole) for place in product(*blocks)]
    thin = min(height, width) < side  # a strip is cut along its length alone
    most = PART_PX // min(height, width) if thin else side
    rows, columns = (_spans(length, most, OVERLAP_PX) for length in (height, width))
    single = [_spans(size, 1, 0) for size in depth]
    return [(slice(None), *place) for place in product(*single, rows, columns)]


def _spans(length: int, most: int, overlap: int) -> list[slice]:
    """Cut a length into spans of about equal size, ``most`` at most, that overlap."""
    count = max(1, -(-(length - overlap) // max(1, most - overlap)))
    edges = np.linspace(0, length - overlap, count + 1).round().astype(int) if count > 1 else np.array([0, length])
    reach = overlap if count > 1 else 0
    return [slice(int(a), int(b) + reach) for a, b in pairwise(edges)]


def worst_of(scores: Sequence[StructureScores]) -> StructureScores:
    """The lowest of every score over the parts that have it, and the number of lesions in all of them."""

    def lowest(name: str) -> Any:
        values = [value for part in scores if (value := getattr(part, name)) is not None]
        return sum(values) if name == "lesions" else min(values, default=None)

    return StructureScores(**{field.name: lowest(field.name) for field in fields(StructureScores)})


def places_to_judge(source: np.ndarray, changed: np.ndarray, mask: np.ndarray | None) -> list[Place]:
    """The parts of a picture or volume that are judged, all of it where it is small enough.

    Parts that show nothing, neither before nor after, and hold no lesion are left out: each part is judged relative to
    its own contrast, and the noise of an empty one is no structure.
    """
    places = parts_of(source.shape)
    if len(places) == 1:
        return places
    least = [FLAT * _variance(_thinned(image)) for image in (source, changed)]

    def shows(place: Place) -> bool:
        if mask is not None and mask[place[1:]].any():
            return True
        return any(_variance(image[place]) >= low for image, low in zip((source, changed), least, strict=True))

    return [place for place in places if shows(place)] or places[:1]


def _thinned(image: np.ndarray) -> np.ndarray:
    step = max(1, round((image[0].size / PART_PX) ** (1 / (image.ndim - 1))))
    return image[(slice(None), *(slice(None, None, step) for _ in image.shape[1:]))]


def _variance(image: np.ndarray) -> float:
    """Mean variance of the channels."""
    return float(image.reshape(len(image), -1).var(axis=1, dtype=np.float64).mean())
