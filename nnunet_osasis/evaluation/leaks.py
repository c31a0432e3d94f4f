"""Leak checks: the same picture, or nearly the same, in two sets; groups divided between training and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.datasets import Case, manifest, read_picture

THUMBNAIL = 16  # pixels
NEAR = 0.985
"""Correlation of two 16 x 16 grey thumbnails, borders left out and contrast normalised, above which two images are
called nearly the same: recompressed, resized and recoloured copies lie above 0.99."""


def thumbnail(image: np.ndarray) -> np.ndarray:
    """A picture ``(C, H, W)`` uint8 as a vector of zero mean and unit length, of 16 x 16 grey values."""
    grey = Image.fromarray(image.astype(np.float32).mean(axis=0))
    small = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), dtype=np.float64)
    centred = (small - small.mean()).ravel()
    return centred / max(float(np.linalg.norm(centred)), 1e-9)


def check_splits(
    sets: Mapping[str, Sequence[Case]], *, one_site: Sequence[str] = (), may_share: Sequence[str] = ()
) -> dict[str, Any]:
    """Look for leaks between the named sets.

    Args:
        one_site: sets whose groups are the same people wherever their files lie. may_share: sets that may hold the
            same images as each other.

    Returns ``{"manifest": {set: rows}, "near_duplicates": [{"first", "second", "correlation"}]}``; near-duplicates
    within one set are nobody's leak and not listed.

    Raises:
        OsasisError: identical decoded pixels, or one group, in two sets.
    """
    manifests = {name: manifest(cases) for name, cases in sets.items()}
    thumbnails = {n: np.stack([thumbnail(read_picture(case.image_path)) for case in c]) for n, c in sets.items()}
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
