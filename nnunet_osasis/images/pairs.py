"""Which files belong together: by file name without suffix, each name once, never silently less than all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import SUFFIXES, image_stem
from nnunet_osasis.images.io import list_images


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sorting key that puts ``case 2`` before ``case 10``.

    >>> sorted(["a10", "a9", "3"], key=natural_key)
    ['3', 'a9', 'a10']
    """
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]


def by_name(files: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Return ``{name: file}`` in natural order.

    Raises:
        OsasisError: two files have one name (``a.png`` and ``a.tif``, ``a.nii`` and ``a.nii.gz``).
    """
    named: dict[str, Path] = {}
    for name, path in sorted(files, key=lambda item: natural_key(item[0])):
        if name in named:
            raise OsasisError(
                "Each case must have one file",
                found=f"{named[name]} and {path}",
                remedy="Point at one of the two copies, or move one away.",
            )
        named[name] = path
    return named


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by name without suffix; raises ``OsasisError`` as :func:`by_name` does."""
    return by_name((image_stem(path), path) for path in list_images(folder))


def require_partners(
    images: Mapping[str, Path], masks: Mapping[str, Path], *, both: bool = True, hint: str = ""
) -> None:
    """Refuse images without a mask of their name and, with ``both``, masks without an image."""
    alone = sorted(images.keys() - masks.keys()) + (sorted(masks.keys() - images.keys()) if both else [])
    if alone:
        first = images.get(alone[0]) or masks[alone[0]]
        raise OsasisError(
            "Every image needs a mask of the same name" + (", and every mask an image" if both else ""),
            found=f"{len(alone)} without a partner, the first one {first}",
            remedy=f"Complete or remove them{hint}. Readable formats: {', '.join(SUFFIXES)}.",
        )
