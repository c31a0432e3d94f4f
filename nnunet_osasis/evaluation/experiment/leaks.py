"""Leak checks: the same picture, or nearly the same, in two sets; groups divided between training and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.datasets import Case, manifest, read_picture

THUMBNAIL = 24
"""Side of a thumbnail, in pixels."""

MIN_IMAGES = 8
"""Fewest images whose mean is subtracted; of fewer the mean would be half of the image itself."""

NEAR = 0.97
"""Correlation, of what two thumbnails do not share with all others, above which images are called nearly the same."""


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return a picture ``(C, H, W)`` uint8 as 24 x 24 gray values of zero mean and unit length, in one row."""
    gray = Image.fromarray(image.astype(np.float32).mean(axis=0))
    small = np.asarray(gray.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), dtype=np.float64)
    return _unit((small - small.mean()).ravel())


def particulars(thumbnails: np.ndarray) -> np.ndarray:
    """Return thumbnails ``(N, pixels)`` without their mean image, of unit length again.

    All eyes show a bright disc on black, all endoscopes the same frame: what is common is no sign of a copy.
    """
    if len(thumbnails) < MIN_IMAGES:
        return thumbnails
    return np.stack([_unit(row) for row in thumbnails - thumbnails.mean(axis=0)])


def _unit(row: np.ndarray) -> np.ndarray:
    return np.asarray(row / max(float(np.linalg.norm(row)), 1e-9))


def check_splits(
    sets: Mapping[str, Sequence[Case]], *, one_site: Sequence[str] = (), may_share: Sequence[str] = ()
) -> dict[str, Any]:
    """Look for leaks between the named sets.

    Args:
        sets: cases by the name of their set.
        one_site: sets whose groups are the same people wherever their files lie.
        may_share: sets that may hold the same images as each other.

    Returns:
        ``{"manifest": {set: rows}, "near_duplicates": [{"first", "second", "correlation"}]}``; near-duplicates within
        one set are nobody's leak and not listed.

    Raises:
        OsasisError: identical decoded pixels, or one group, in two sets.
    """
    manifests = {name: manifest(cases) for name, cases in sets.items()}
    owners = [name for name, cases in sets.items() for _ in cases]
    rows = particulars(np.stack([thumbnail(read_picture(c.image_path)) for cases in sets.values() for c in cases]))
    thumbnails = {name: rows[[owner == name for owner in owners]] for name in sets}
    near = []
    for first, second in combinations(sets, 2):
        if first in may_share and second in may_share:
            continue
        hashes = {row["sha256"]: row["name"] for row in manifests[first]}
        for row in manifests[second]:
            if row["sha256"] in hashes:
                raise OsasisError(
                    "No image may be in two sets",
                    found=f"{hashes[row['sha256']]} of {first} and {row['name']} of {second} have equal pixels",
                    remedy="Leave it out of one of them.",
                )
        _refuse_shared_groups(sets, first, second, one_site=first in one_site and second in one_site)
        correlation = thumbnails[first] @ thumbnails[second].T
        for i, j in np.argwhere(correlation > NEAR):
            near.append(
                {
                    "first": f"{first}/{sets[first][i].name}",
                    "second": f"{second}/{sets[second][j].name}",
                    "correlation": round(float(correlation[i, j]), 4),
                }
            )
    return {"manifest": manifests, "near_duplicates": near}


def _refuse_shared_groups(sets: Mapping[str, Sequence[Case]], first: str, second: str, *, one_site: bool) -> None:
    """Only sets of one site can share a group: the same patient number elsewhere is another patient."""
    folders = [{case.image_path.parent for case in sets[name]} for name in (first, second)]
    if folders[0].isdisjoint(folders[1]) and not (one_site and all(c.group != c.name for c in sets[first])):
        return
    shared = {case.group for case in sets[first]} & {case.group for case in sets[second]}
    if shared:
        raise OsasisError(
            "A patient or sequence must not be in two sets",
            found=f"{sorted(shared)[0]} in {first} and {second}",
            remedy="Move the whole group to one side.",
        )
