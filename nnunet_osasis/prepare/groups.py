"""Which cases must stay together: frames of one sequence, images of one patient."""

from __future__ import annotations

import csv
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from pathlib import Path

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import is_file
from nnunet_osasis.prepare.layouts import ANYWHERE, Layout

LARGEST_TABLE = 64 * 2**20


def natural(key: str) -> tuple[tuple[int, int | str], ...]:
    """A sorting key that puts case 9 before case 10."""
    return tuple((0, int(part)) if part.isdigit() else (1, part.lower()) for part in re.findall(r"\d+|\D+", key))


def number_of(key: str) -> int | None:
    """The last number in a name; None without one."""
    found = re.findall(r"\d+", key)
    return int(found[-1]) if found else None


def group_rule(layout: Layout, files: Mapping[str, Path], table: Path | None) -> Callable[[str], str]:
    """From a case's name in the source to its group.

    The first of these that there is: ``table`` (CSV with the columns ``case`` and ``group``, all cases in it), the
    layout's own table among ``files``, its sequences, its pattern. A case without any has a group of its own.

    Raises:
        OsasisError: an unreadable table, a bad pattern; on use: a case that ``table`` or the pattern leaves out.
    """
    if table is not None:
        rows = _read_table(table, "case", "group")
        return lambda key: _required(rows, key)
    if layout.group_table is not None:
        pattern, case, group = layout.group_table
        found = [path for name, path in files.items() if re.fullmatch(ANYWHERE + pattern, name, re.IGNORECASE)]
        rows = _read_table(found[0], case, group) if found else {}
        return lambda key: rows.get(key, _alone(key))
    if layout.sequence_starts:
        return lambda key: f"sequence {bisect_right(layout.sequence_starts, number_of(key) or 0)}"
    if layout.group:
        return _pattern_rule(layout.group)
    return _alone


def _alone(key: str) -> str:
    return f"case {key}"


def _required(rows: Mapping[str, str], key: str) -> str:
    if key not in rows:
        raise OsasisError(
            "Every case needs a row in the table of groups",
            found=f"none for {key}",
            remedy="Add it to the table.",
        )
    return rows[key]


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
    if not is_file(path) or path.stat().st_size > LARGEST_TABLE:
        raise OsasisError(
            f"The table of groups must be a file of {LARGEST_TABLE // 2**20} MiB at most",
            found=f"none at {path}",
            remedy="Add it to the table.",
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        rows = list(csv.DictReader(lines, delimiter="\t" if lines and "\t" in lines[0] else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise OsasisError(
            "The table of groups must be readable",
            found=f"{error} in {path}",
            remedy="Add it to the table.",
        ) from error
    if not rows or case not in rows[0] or group not in rows[0]:
        raise OsasisError(
            f"The table of groups needs the columns {case} and {group}",
            found=f"{path} without them",
            remedy="Add it to the table.",
        )
    return {row[case]: row[group] for row in rows}
