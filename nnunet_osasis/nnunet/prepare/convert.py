"""Writing an nnU-Net raw dataset: whole or not at all."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.gray import ColorSurvey, as_gray
from nnunet_osasis.images.image import LoadedImage, image_suffix
from nnunet_osasis.images.io import write_like
from nnunet_osasis.images.masks import foreground_value, mask_on, require_one_foreground
from nnunet_osasis.images.nifti import as_labels
from nnunet_osasis.nnunet.prepare.labels import LabelRule
from nnunet_osasis.nnunet.prepare.pairs import Case
from nnunet_osasis.nnunet.prepare.reading import read_any
from nnunet_osasis.nnunet.prepare.splits import Division
from nnunet_osasis.nnunet.prepare.target import UNFINISHED, Target
from nnunet_osasis.nnunet.raw_dataset import CHANNEL_NAMES, write_png
from nnunet_osasis.runtime.folders import atomic_folder
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.runtime.storage import atomic_write_bytes, sha256_of_file

MAX_PROBLEMS_SHOWN = 5
"""Number of problems that one message names."""

GRAY_CHANNEL = "zscore"
"""Name of a gray channel; nnU-Net normalizes by z-score every channel whose name it does not know."""


@dataclass(frozen=True)
class Kind:
    """What all images of a dataset must have in common.

    Attributes:
        channels: their number of channels.
        ending: the file ending: ``.png`` for pictures, ``.nii.gz`` for volumes.
    """

    channels: int
    ending: str

    def __str__(self) -> str:
        color = {1: "gray", 3: "color"}.get(self.channels, self.channels)
        return f"{color} {'pictures' if self.ending == '.png' else 'volumes'}"


@dataclass(frozen=True)
class Request:
    """Everything about a dataset but its cases.

    Attributes:
        labels: how masks become labels.
        channel_names: nnU-Net's, which choose the normalization; None: ``rgb_to_0_1`` for color (one factor for all
            three, so colors stay), ``zscore`` for gray.
        facts: further entries of dataset.json (title, licence).
        gray: make one channel of images of three.
    """

    labels: LabelRule
    channel_names: Sequence[str] | None = None
    facts: dict[str, str] = field(default_factory=dict)
    gray: bool = False


def write_dataset(target: Target, division: Division, request: Request, *, overwrite: bool = False) -> Path:
    """Convert and write all cases of ``division``; return the dataset's folder.

    A reader sees the whole dataset or none. What a killed run left is cleared, and a dataset that it left without its
    splits is made again.

    Args:
        target: where the dataset goes.
        division: its cases and folds.
        request: everything else about it.
        overwrite: replace a dataset that is there.

    Raises:
        OsasisError: the dataset is there and ``overwrite`` is False; another process is making it; files cannot be
            read or do not fit (the first few in one message), disappear or change meanwhile; the disk is full.
    """
    with output_lock(target.raw, "osasis-prepare", name=f".{target.folder.name}.lock"):
        target.require_free(overwrite=overwrite)
        names = case_names(target.name, [case.key for case in division.cases])
        with atomic_folder(target.folder, overwrite=True) as folder:
            hashes = _hashes(division)
            kind = _write_cases(folder, division, names, request)
            if changed := [path for path, known in _hashes(division).items() if known != hashes[path]]:
                raise OsasisError(
                    "Images and masks must not change while they are converted",
                    found=f"{changed[0]} ({len(changed)} in all)",
                    remedy="Run the same command again when they are complete.",
                )
            _write_tables(folder, division, names, request, kind, hashes)
            (folder / UNFINISHED).touch()
        target.write_splits(target.folder / "splits_final.json")
        (target.folder / UNFINISHED).unlink()
    return target.folder


def _hashes(division: Division) -> dict[Path, str]:
    """Return the SHA-256 of every image and mask."""
    files = [path for case in division.cases for path in (case.image, case.mask)]
    try:
        return {path: sha256_of_file(path) for path in files}
    except OSError as error:
        raise OsasisError(
            "Images and masks must stay while they are converted",
            found=f"{error.strerror} at {error.filename}",
            remedy="Put it back, or run the same command without it.",
        ) from error


def case_names(prefix: str, keys: Sequence[str]) -> dict[str, str]:
    """Return nnU-Net's name of every case, ``<prefix>_<key>``.

    Numbers get one width; characters other than letters, digits, ``-`` and ``_`` become ``_``.

    >>> case_names("Polyps", ["9", "10"])
    {'9': 'Polyps_09', '10': 'Polyps_10'}

    Raises:
        OsasisError: two cases would have one name.
    """
    width = max((len(key) for key in keys if key.isdigit()), default=0)
    names = {
        key: f"{prefix}_{key.zfill(width) if key.isdigit() else re.sub(r'[^A-Za-z0-9_-]', '_', key)}" for key in keys
    }
    if len(set(names.values())) < len(names):
        raise OsasisError("Case names must differ in letters and digits", found="two that do not", remedy="Rename one.")
    return names


def _write_cases(folder: Path, division: Division, names: dict[str, str], request: Request) -> Kind:
    labels, survey = request.labels, ColorSurvey()
    problems: list[OsasisError] = []
    kinds: dict[Kind, Case] = {}
    values: list[int | None] = []
    shares: list[float] = []
    binary = not labels.classes and labels.threshold is None
    jobs = [(case, "Tr") for case in division.training] + [(case, "Ts") for case in division.test]
    for case, part in tqdm(jobs, desc="Converting", unit="case"):
        try:
            image, kind = _read_image(case, survey, gray=request.gray)
            kinds.setdefault(kind, case)
            mask = mask_on(image, read_any(case.mask))
            field = None if case.field is None else mask_on(image, read_any(case.field), what="field of view")
            label = labels.convert(mask[None], None if field is None else field[None])
            values.append(foreground_value(mask) if binary else None)
            if part == "Tr":
                shares.append(labels.foreground_share(label))
        except OsasisError as error:
            problems.append(OsasisError(f"{case.mask}: {error.rule}", found=error.found, remedy=error.remedy))
            continue
        _write_image(folder / f"images{part}" / f"{names[case.key]}_0000{kind.ending}", image)
        # a label map lies where its image lies, and nothing else that the image's file says is true of it
        labeled = LoadedImage(label[None], image.path, image.geometry, as_labels(image.kept))
        _write_array(folder / f"labels{part}" / f"{names[case.key]}{kind.ending}", labeled)
    _raise_together(problems)
    require_one_foreground(values)
    if not any(shares):
        raise OsasisError(
            "The masks of the training cases must hold foreground",
            found=f"none in {len(shares)} masks",
            remedy="0 is the background. Check --threshold, --labels, and whether masks and images were exchanged.",
        )
    if (most := sum(share > 0.5 for share in shares)) > len(shares) / 2:
        print(f"Warning: foreground covers more than half of {most} of {len(shares)} images. 0 is taken for the "
              "background: are these masks inverted?", file=sys.stderr)  # fmt: skip
    if len(kinds) > 1:
        raise OsasisError(
            "All images of a dataset must be of one kind",
            found=" and ".join(f"{kind} ({case.image})" for kind, case in kinds.items()),
            remedy="Convert the fewer ones, or make two datasets. If color is gray stored as RGB, give --gray.",
        )
    survey.warn()
    return next(iter(kinds))


def _read_image(case: Case, survey: ColorSurvey, *, gray: bool) -> tuple[LoadedImage, Kind]:
    loaded = read_any(case.image)
    if gray:
        loaded = as_gray(loaded)
    survey.add(str(case.image), loaded.array)
    array = loaded.array
    if loaded.geometry is not None or array.ndim == 4:
        if len(array) == 1:
            return loaded, Kind(1, ".nii.gz")
    elif len(array) in (1, 3) and (array.dtype == np.uint8 or (len(array) == 1 and array.dtype == np.uint16)):
        return loaded, Kind(len(array), ".png")
    raise OsasisError(
        "Images must be 8-bit color or 8- or 16-bit gray pictures, or volumes of one channel",
        found=f"{array.dtype} {array.shape} in {case.image}",
        remedy="Convert them; several channels of a scan become several files in nnU-Net's raw format.",
    )


def _write_image(path: Path, image: LoadedImage) -> None:
    """Write pictures as PNG, volumes as NIfTI; a file of that format is copied."""
    if path.name.endswith(".nii.gz") and image_suffix(image.path) == ".nii.gz" and image.kept:
        atomic_write_bytes(path, image.path.read_bytes())
    else:
        _write_array(path, image)


def _write_array(path: Path, image: LoadedImage) -> None:
    array = image.array
    if path.suffix == ".png":
        write_png(path, array[0] if len(array) == 1 else np.moveaxis(array, 0, -1))
    else:
        write_like(image, array, path)


def _raise_together(problems: list[OsasisError]) -> None:
    if not problems:
        return
    first = problems[0]
    shown = [f"{p.rule}, got {p.found}" for p in problems[1:MAX_PROBLEMS_SHOWN]]
    more = [f"and {len(problems) - MAX_PROBLEMS_SHOWN} more"] if len(problems) > MAX_PROBLEMS_SHOWN else []
    raise OsasisError(first.rule, found="; ".join([str(first.found), *shown, *more]), remedy=first.remedy)


def _write_tables(
    folder: Path, division: Division, names: dict[str, str], request: Request, kind: Kind, hashes: dict[Path, str]
) -> None:
    """Write dataset.json, splits_final.json, and cases.json: where every case comes from."""
    chosen = request.channel_names
    if chosen is None:
        chosen = list(CHANNEL_NAMES.values()) if kind.channels == 3 else [GRAY_CHANNEL]
    if len(chosen) != kind.channels:
        raise OsasisError(f"--channel-names must name the {kind.channels} channel(s)", found=" ".join(chosen))
    dataset = {
        "channel_names": {str(i): name for i, name in enumerate(chosen)},
        "labels": request.labels.names(),
        "numTraining": len(division.training),
        "file_ending": kind.ending,
        **request.facts,
    }
    atomic_write_json(folder / "dataset.json", dataset)
    splits = [{part: [names[key] for key in keys] for part, keys in fold.items()} for fold in division.folds]
    atomic_write_json(folder / "splits_final.json", splits)
    records = {
        names[case.key]: {
            "image": case.image.name,
            "image_sha256": hashes[case.image],
            "mask": case.mask.name,
            "mask_sha256": hashes[case.mask],
            "group": case.group,
        }
        for case in division.cases
    }
    atomic_write_json(folder / "cases.json", records)
