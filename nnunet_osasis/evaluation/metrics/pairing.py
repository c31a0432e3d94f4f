"""Which files belong together: by file name without suffix, and never silently less than all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.pairs import by_name, images_by_stem

SHOWN = 5
"""Number of cases that a message names."""


@dataclass(frozen=True)
class Pairs:
    """Files by case.

    Attributes:
        references: ``{case: file}``, by name.
        predictions: ``{method: {case: file}}`` with the same cases.
        left_out: ``{method: {"without prediction": cases, "without reference": cases}}`` of methods that lack some.
    """

    references: dict[str, Path]
    predictions: dict[str, dict[str, Path]]
    left_out: dict[str, dict[str, list[str]]]


def files_by_case(folder: Path, *, suffix: str | None = None) -> dict[str, Path]:
    """Return ``{name without suffix: file}`` of a folder's images, or of its files that end in ``suffix``.

    The order is natural.

    Raises:
        OsasisError: the folder is missing or empty, or two files have one name.
    """
    if suffix is None:
        return images_by_stem(folder)
    paths = [path for path in folder.glob(f"*{suffix}") if not path.name.startswith(".")]
    if not paths:
        raise OsasisError(
            f"The folder must hold {suffix} files",
            found=f"none in {folder}",
            remedy="Predict with nnUNetv2_predict --save_probabilities, or leave --probabilities out.",
        )
    return by_name((path.name.removesuffix(suffix), path) for path in paths)


def pair_files(
    predictions: Mapping[str, Path], references: Path, *, probabilities: bool = False, allow_missing: bool = False
) -> Pairs:
    """Pair every method's files with the references.

    Args:
        predictions: ``{method: folder}``.
        references: folder of the references.
        probabilities: pair nnU-Net's ``.npz`` files instead of images.
        allow_missing: keep the cases that all sides have, and list the others.

    Raises:
        OsasisError: the sets differ, nothing is left, or :func:`files_by_case` refuses a folder.
    """
    truths = files_by_case(references)
    methods = {name: files_by_case(f, suffix=".npz" if probabilities else None) for name, f in predictions.items()}
    left_out = {}
    for name, files in methods.items():
        sides = {
            "without prediction": [case for case in truths if case not in files],
            "without reference": [case for case in files if case not in truths],
        }
        if any(sides.values()):
            left_out[name] = {side: cases for side, cases in sides.items() if cases}
    if left_out and not allow_missing:
        raise OsasisError(
            "Predictions and references must be the same cases",
            found="; ".join(describe_left_out(left_out)),
            remedy="Complete the folders, or give --allow-missing to score only the cases that all sides have.",
        )
    common = [case for case in truths if all(case in files for files in methods.values())]
    if not common:
        raise OsasisError(
            "Predictions and references must have cases in common",
            found=f"none of {len(truths)} references",
            remedy="Files are paired by their name without suffix.",
        )
    return Pairs(
        {case: truths[case] for case in common},
        {name: {case: files[case] for case in common} for name, files in methods.items()},
        left_out,
    )


def describe_left_out(left_out: Mapping[str, Mapping[str, list[str]]]) -> list[str]:
    """Return one text per method and side."""
    return [
        f"{name}: {len(cases)} {side} ({', '.join(cases[:SHOWN])}{', ...' if len(cases) > SHOWN else ''})"
        for name, sides in left_out.items()
        for side, cases in sides.items()
    ]
