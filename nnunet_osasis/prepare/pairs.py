"""Which image belongs to which mask, and which cases belong together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import SUFFIXES, image_stem
from nnunet_osasis.images.io import list_images
from nnunet_osasis.prepare.groups import group_rule, natural
from nnunet_osasis.prepare.layouts import Layout, Part

_LEFT_BY_ARCHIVERS = re.compile(r"(?:^|/)(?:\.|__MACOSX/)")  # macOS puts a shadow of every file into its archives


@dataclass(frozen=True)
class Case:
    """One image with its mask.

    Attributes:
        key: its name in the source, unique.
        group: what it must not be separated from; unique where nothing is known.
        test: whether it is meant for testing.
        field: the mask of the field of view, if there is one.
    """

    key: str
    image: Path
    mask: Path
    group: str
    test: bool = False
    field: Path | None = None


def find_layout_cases(source: Path, layout: Layout, table: Path | None = None) -> list[Case]:
    """The cases of a known dataset below ``source``, in the order of their numbers or names.

    Args:
        table: a CSV file of groups (columns ``case`` and ``group``) that goes before the layout's own rule.

    Raises:
        OsasisError: nothing there in any known arrangement; an image or mask without a partner; names twice.
    """
    if not source.is_dir():
        raise OsasisError("The source folder must exist", found=f"no folder {source}", remedy="Check the path.")
    paths = {path.relative_to(source): path for path in sorted(source.rglob("*")) if path.is_file()}
    files = {name.as_posix(): path for name, path in paths.items() if not _LEFT_BY_ARCHIVERS.search(name.as_posix())}
    for parts in layout.arrangements:
        found = [(part, _matches(files, part.images), _matches(files, part.masks)) for part in parts]
        if all(images and masks for _, images, masks in found):
            break
    else:
        raise OsasisError(
            f"The source folder must hold {layout.title} as it is published",
            found=f"{len(files)} files below {source}, none of the known arrangement",
            remedy="Unpack it there, or use --layout folders --images A --masks B.",
        )
    group_of = group_rule(layout, files, table)
    cases = []
    for part, image_files, mask_files in found:
        images, masks = _unique(image_files), _unique(mask_files)
        _require_partners(images, masks)
        field = _unique(_matches(files, part.field)) if part.field else {}
        for number, path in images.items():
            key = _key(part, number, parts)
            cases.append(Case(key, path, masks[number], group_of(key), part.test, field.get(number)))
    return sorted(cases, key=lambda case: natural(case.key))


def find_folder_cases(
    images: Path, masks: Path, *, suffix: str = "", pattern: str = "", table: Path | None = None
) -> list[Case]:
    """Images and masks of the same stem in two folders.

    Args:
        suffix: what a mask's stem has in addition, such as ``_segmentation``.
        pattern: a regular expression whose first group is, in a stem, the case's group.
        table: a CSV file of groups (columns ``case`` and ``group``).

    Raises:
        OsasisError: a folder is missing or empty; an image or mask without a partner; names twice; a bad pattern.
    """
    by_stem = _unique((image_stem(path), path) for path in list_images(images))
    marked = _unique((image_stem(path), path) for path in list_images(masks))
    if suffix:
        marked = {stem.removesuffix(suffix): path for stem, path in marked.items() if stem.endswith(suffix)}
    _require_partners(by_stem, marked)
    group_of = group_rule(Layout(title="folders", arrangements=(), foreground="", terms="", group=pattern), {}, table)
    return [Case(stem, by_stem[stem], marked[stem], group_of(stem)) for stem in sorted(by_stem, key=natural)]


def _matches(files: dict[str, Path], pattern: str) -> list[tuple[str, Path]]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return [(match["case"], path) for name, path in files.items() if (match := compiled.fullmatch(name))]


def _unique(pairs: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for key, path in pairs:
        if key in found:
            raise OsasisError(
                "Every case must be there once",
                found=f"{found[key]} and {path}",
                remedy="Point at one of the two copies, or move one away.",
            )
        found[key] = path
    return found


def _key(part: Part, key: str, parts: tuple[Part, ...]) -> str:
    """Parts may number their cases alike (DRIVE does not, but copies of it do)."""
    return key if len(parts) == 1 else f"{key}_{'test' if part.test else 'training'}"


def _require_partners(images: dict[str, Path], masks: dict[str, Path]) -> None:
    alone = sorted(str({**images, **masks}[key]) for key in images.keys() ^ masks.keys())
    if alone:
        raise OsasisError(
            "Every image needs a mask of the same name, and every mask an image",
            found=f"{len(alone)} without a partner, the first one {alone[0]}",
            remedy="Complete or remove them; for masks named otherwise there is --mask-suffix. "
            f"Readable formats: {', '.join(SUFFIXES)}.",
        )
