"""Which prediction belongs to which reference: by file name without suffix, and never silently less than all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import image_stem
from nnunet_osasis.images.io import list_images

SHOWN = 5


@dataclass(frozen=True)
class Pairs:
    """Files by case.

    Attributes:
        references: ``{case: file}``, by name.
        predictions: ``{method: {case: file}}`` with the same cases.
        left_out: ``{method: {"without prediction": cases, "without reference": cases}}``, where there are any.
    """

    references: dict[str, Path]
    predictions: dict[str, dict[str, Path]]
    left_out: dict[str, dict[str, list[str]]]


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorting key that puts ``case 2`` before ``case 10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def files_by_case(folder: Path, *, suffix: str | None = None) -> dict[str, Path]:
    """``{stem: file}`` of the images (or of the files that end in ``suffix``) of a folder, in natural order.

    Raises ``OsasisError`` for a folder that is missing or empty and for two files of one stem.
    """
    if suffix is None:
        paths = {path: image_stem(path) for path in list_images(folder)}
    else:
        paths = {path: path.name[: -len(suffix)] for path in folder.glob(f"*{suffix}") if path.name[0] != "."}
        if not paths:
            raise OsasisError(
                f"The folder must hold {suffix} files",
                found=f"none in {folder}",
                remedy="Predict with nnUNetv2_predict --save_probabilities, or leave --probabilities out.",
            )
    found: dict[str, Path] = {}
    for path, stem in sorted(paths.items(), key=lambda item: natural_key(item[1])):
        if stem in found:
            raise OsasisError("Each case must have one file", found=f"{found[stem].name} and {path.name} in {folder}")
        found[stem] = path
    return found


def pair_files(
    predictions: Mapping[str, Path], references: Path, *, probabilities: bool = False, allow_missing: bool = False
) -> Pairs:
    """Pair every method's files with the references.

    With ``allow_missing`` the cases that all sides have are kept and the others listed. Raises ``OsasisError`` when
    the sets differ otherwise, when nothing is left, or for what :func:`files_by_case` refuses.
    """
    wanted = files_by_case(references)
    methods = {name: files_by_case(f, suffix=".npz" if probabilities else None) for name, f in predictions.items()}
    left_out = {}
    for name, files in methods.items():
        sides = {
            "without prediction": [case for case in wanted if case not in files],
            "without reference": [case for case in files if case not in wanted],
        }
        if any(sides.values()):
            left_out[name] = {side: cases for side, cases in sides.items() if cases}
    if left_out and not allow_missing:
        raise OsasisError(
            "Predictions and references must be the same cases",
            found="; ".join(describe_left_out(left_out)),
            remedy="Complete the folders, or give --allow-missing to score only the cases that all sides have.",
        )
    common = [case for case in wanted if all(case in files for files in methods.values())]
    if not common:
        raise OsasisError(
            "Predictions and references must have cases in common",
            found=f"none of {len(wanted)} references",
            remedy="Files are paired by their name without suffix.",
        )
    return Pairs(
        {case: wanted[case] for case in common},
        {name: {case: files[case] for case in common} for name, files in methods.items()},
        left_out,
    )


def describe_left_out(left_out: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    """One text per method and side."""
    return [
        f"{name}: {len(cases)} {side} ({', '.join(cases[:SHOWN])}{', ...' if len(cases) > SHOWN else ''})"
        for name, sides in left_out.items()
        for side, cases in sides.items()
    ]
