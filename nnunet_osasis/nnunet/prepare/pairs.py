"""Which image belongs to which mask, and which cases must stay together: frames of a sequence, images of a patient."""

from __future__ import annotations

import csv
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import is_file
from nnunet_osasis.images.pairs import by_name, images_by_stem, natural_key, require_partners
from nnunet_osasis.nnunet.prepare.layouts import ANYWHERE, Layout, Part

ARCHIVE_LITTER = re.compile(r"(?:^|/)(?:\.|__MACOSX/)")
"""Pattern of hidden files and of the shadow that macOS puts beside every file of its archives."""

MAX_TABLE_BYTES = 64 * 2**20
"""Largest table of groups that is read, in bytes."""


@dataclass(frozen=True)
class Case:
    """One image with its mask.

    Attributes:
        key: its name in the source, unique.
        image: the file of the image.
        mask: the file of the mask.
        group: the name of what it must not be separated from; unique where nothing is known.
        test: whether it is meant for testing.
        field: the mask of the field of view; None where the dataset has none.
    """

    key: str
    image: Path
    mask: Path
    group: str
    test: bool = False
    field: Path | None = None


def find_layout_cases(source: Path, layout: Layout, table: Path | None = None) -> list[Case]:
    """Find the cases of a known dataset below ``source``, in the order of their numbers or names.

    Args:
        source: the folder that the dataset was unpacked to.
        layout: the dataset.
        table: a CSV file of groups (columns ``case`` and ``group``) that goes before the layout's own rule.

    Raises:
        OsasisError: nothing is there in any known arrangement; an image or mask has no partner; a name is there twice.
    """
    if not source.is_dir():
        raise OsasisError("The source folder must exist", found=f"no folder {source}", remedy="Check the path.")
    paths = {path.relative_to(source).as_posix(): path for path in sorted(source.rglob("*")) if path.is_file()}
    files = {name: path for name, path in paths.items() if not ARCHIVE_LITTER.search(name)}
    for parts in layout.arrangements:
        matches = [(part, _matches(files, part.images), _matches(files, part.masks)) for part in parts]
        if all(images and masks for _, images, masks in matches):
            break
    else:
        raise OsasisError(
            f"The source folder must hold {layout.title} as it is published",
            found=f"{len(files)} files below {source}, none of the known arrangement",
            remedy="Unpack it there, or use --layout folders --images A --masks B.",
        )
    group_of = group_rule(layout, files, table)
    cases = []
    for part, image_files, mask_files in matches:
        images, masks = by_name(image_files), by_name(mask_files)
        require_partners(images, masks)
        fields = by_name(_matches(files, part.field)) if part.field else {}
        for name, path in images.items():
            key = _key(part, name, parts)
            cases.append(Case(key, path, masks[name], group_of(key), part.test, fields.get(name)))
    return sorted(cases, key=lambda case: natural_key(case.key))


def find_folder_cases(
    images: Path, masks: Path, *, suffix: str = "", pattern: str = "", table: Path | None = None
) -> list[Case]:
    """Pair images and masks of the same stem in two folders.

    Args:
        images: the folder of images.
        masks: the folder of masks.
        suffix: what a mask's stem has in addition, such as ``_segmentation``.
        pattern: a regular expression whose first group is, in a stem, the case's group.
        table: a CSV file of groups (columns ``case`` and ``group``).

    Raises:
        OsasisError: a folder is missing or empty; an image or mask has no partner; a name is there twice; a bad
            pattern.
    """
    by_stem = images_by_stem(images)
    masks_by_stem = images_by_stem(masks)
    if suffix:
        masks_by_stem = {
            stem.removesuffix(suffix): path for stem, path in masks_by_stem.items() if stem.endswith(suffix)
        }
    require_partners(by_stem, masks_by_stem, hint="; for masks named otherwise there is --mask-suffix")
    group_of = group_rule(Layout(title="folders", arrangements=(), foreground="", terms="", group=pattern), {}, table)
    return [Case(stem, by_stem[stem], masks_by_stem[stem], group_of(stem)) for stem in sorted(by_stem, key=natural_key)]


def _matches(files: Mapping[str, Path], pattern: str) -> list[tuple[str, Path]]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return [(match["case"], path) for name, path in files.items() if (match := compiled.fullmatch(name))]


def _key(part: Part, key: str, parts: tuple[Part, ...]) -> str:
    """Make keys of several parts differ, which may number their cases alike (copies of DRIVE do)."""
    return key if len(parts) == 1 else f"{key}_{'test' if part.test else 'training'}"


def number_of(key: str) -> int | None:
    """Return the last number in a name; None without one."""
    numbers = re.findall(r"\d+", key)
    return int(numbers[-1]) if numbers else None


def group_rule(layout: Layout, files: Mapping[str, Path], table: Path | None) -> Callable[[str], str]:
    """Return the function from a case's name in the source to its group.

    The first of these decides: ``table`` (CSV with the columns ``case`` and ``group``, all cases in it), the layout's
    own table among ``files``, its sequences, its pattern. Without any a case has a group of its own.

    Raises:
        OsasisError: an unreadable table, a bad pattern; on use: a case that ``table`` or the pattern leaves out.
    """
    if table is not None:
        groups = _read_table(table, "case", "group")
        return lambda key: _required(groups, key)
    if layout.group_table is not None:
        pattern, case, group = layout.group_table
        tables = [path for name, path in files.items() if re.fullmatch(ANYWHERE + pattern, name, re.IGNORECASE)]
        groups = _read_table(tables[0], case, group) if tables else {}
        return lambda key: groups.get(key, f"case {key}")
    if layout.sequence_starts:
        return lambda key: f"sequence {bisect_right(layout.sequence_starts, number_of(key) or 0)}"
    return _pattern_rule(layout.group) if layout.group else lambda key: f"case {key}"


def _required(groups: Mapping[str, str], key: str) -> str:
    if key not in groups:
        raise OsasisError(
            "Every case needs a row in the table of groups", found=f"none for {key}", remedy="Add it to the table."
        )
    return groups[key]


def _pattern_rule(pattern: str) -> Callable[[str], str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise OsasisError("A group pattern must be a regular expression", found=f"{pattern} ({error})") from None

    def rule(key: str) -> str:
        match = compiled.search(key)
        if match is None or match.lastindex is None or match[1] is None:
            raise OsasisError(
                "The group pattern must match every case and hold one group in parentheses",
                found=f"{pattern} for {key}",
                remedy=r"For example --group-pattern '^(patient\d+)'.",
            )
        return match[1]

    return rule


def _read_table(path: Path, case: str, group: str) -> dict[str, str]:
    """Return the group of every case, from the columns ``case`` and ``group``."""
    remedy = f"Save it as text in UTF-8, comma- or tab-separated, with the columns {case} and {group}."
    if not is_file(path) or path.stat().st_size > MAX_TABLE_BYTES:
        rule = f"The table of groups must be a file of {MAX_TABLE_BYTES // 2**20} MiB at most"
        raise OsasisError(rule, found=f"none at {path}", remedy=remedy)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = list(csv.DictReader(lines, delimiter="\t" if lines and "\t" in lines[0] else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OsasisError("The table of groups must be readable", found=f"{error} in {path}", remedy=remedy) from error
    if not rows or case not in rows[0] or group not in rows[0]:
        rule = f"The table of groups needs the columns {case} and {group}"
        raise OsasisError(rule, found=f"{path} without them", remedy=remedy)
    return {row[case]: row[group] for row in rows}
