"""Writing an nnU-Net raw dataset: whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import LoadedImage, image_suffix
from nnunet_osasis.images.io import write_like
from nnunet_osasis.images.nifti import as_labels
from nnunet_osasis.nnunet.prepare.labels import LabelRule, foreground_value, require_one_foreground
from nnunet_osasis.nnunet.prepare.pairs import Case
from nnunet_osasis.nnunet.prepare.reading import read_any
from nnunet_osasis.nnunet.prepare.splits import Division
from nnunet_osasis.nnunet.prepare.target import UNFINISHED, Target
from nnunet_osasis.nnunet.raw_dataset import CHANNEL_NAMES, write_png
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.runtime.storage import atomic_write_bytes, sha256_of_file, sync_folder, temporary_prefix, write_error

MOST_SHOWN = 5  # of several problems

GREY_CHANNEL = "zscore"  # nnU-Net normalizes by z-score every channel whose name it does not know


@dataclass(frozen=True)
class Kind:
    """What all images of a dataset must have in common: channels, and pictures or volumes."""

    channels: int
    ending: str

    def __str__(self) -> str:
        what = "pictures" if self.ending == ".png" else "volumes"
        colour = {1: "grey", 3: "colour"}
        return f"{colour.get(self.channels, self.channels)} {what}"


@dataclass(frozen=True)
class Request:
    """Everything about a dataset but its cases.

    Attributes:
        labels: how masks become labels.
        channel_names: nnU-Net's, which choose the normalization; None: ``rgb_to_0_1`` for colour (one factor for all
            three, so colours stay), ``zscore`` for grey.
        facts: further entries of dataset.json (title, licence).
    """

    labels: LabelRule
    channel_names: Sequence[str] | None = None
    facts: dict[str, str] = field(default_factory=dict)


def write_dataset(target: Target, division: Division, request: Request, *, overwrite: bool = False) -> Path:
    """Convert and write all cases of ``division``; returns the dataset's folder.

    Built in a hidden folder and renamed into place, so that nobody ever sees half a dataset. What a killed run left
    is cleared, and a dataset it left without its splits is made again.

    Raises:
        OsasisError: the dataset is there and ``overwrite`` is False; another process is making it; files that cannot
            be read or do not fit (the first few in one message), that disappear or change meanwhile; a full disk.
    """
    with output_lock(target.raw, "osasis-prepare", name=f".{target.folder.name}.lock"):
        return _write_dataset(target, division, request, overwrite)


def _write_dataset(target: Target, division: Division, request: Request, overwrite: bool) -> Path:
    target.require_free(overwrite=overwrite)
    names = case_names(target.name, [case.key for case in (*division.training, *division.test)])
    try:
        workbench = Path(tempfile.mkdtemp(prefix=temporary_prefix(), dir=target.raw))
    except OSError as error:
        raise write_error(target.raw, error) from error
    try:
        hashes = _hashes(division)
        kind = _write_cases(workbench, division, names, request.labels)
        if changed := [path for path, known in _hashes(division).items() if known != hashes[path]]:
            raise OsasisError(
                "Images and masks must not change while they are converted",
                found=f"{changed[0]} ({len(changed)} in all)",
                remedy="Run the same command again when they are complete.",
            )
        _write_tables(workbench, division, names, request, kind, hashes)
        (workbench / UNFINISHED).touch()
        _publish(workbench, target.folder)
    except OSError as error:
        raise write_error(target.folder, error) from error
    finally:
        shutil.rmtree(workbench, ignore_errors=True)
    target.write_splits(target.folder / "splits_final.json")
    (target.folder / UNFINISHED).unlink()
    return target.folder


def _hashes(division: Division) -> dict[Path, str]:
    """SHA-256 of every image and mask."""
    files = [path for case in (*division.training, *division.test) for path in (case.image, case.mask)]
    try:
        return {path: sha256_of_file(path) for path in files}
    except OSError as error:
        raise OsasisError(
            "Images and masks must stay while they are converted",
            found=f"{error.strerror} at {error.filename}",
            remedy="Put it back, or run the same command without it.",
        ) from error


def case_names(prefix: str, keys: Sequence[str]) -> dict[str, str]:
    """nnU-Net's name of every case: ``<prefix>_<key>``, numbers of one width, other than plain characters as ``_``.

    >>> case_names("Polyps", ["9", "10"])
    {'9': 'Polyps_09', '10': 'Polyps_10'}
    """
    width = max((len(key) for key in keys if key.isdigit()), default=0)
    names = {
        key: f"{prefix}_{key.zfill(width) if key.isdigit() else re.sub(r'[^A-Za-z0-9_-]', '_', key)}" for key in keys
    }
    if len(set(names.values())) < len(names):
        raise OsasisError("Case names must differ in letters and digits", found="two that do not", remedy="Rename one.")
    return names


def _write_cases(folder: Path, division: Division, names: dict[str, str], labels: LabelRule) -> Kind:
    problems: list[OsasisError] = []
    kinds: dict[Kind, Case] = {}
    values: list[int | None] = []
    jobs = [(case, "Tr") for case in division.training] + [(case, "Ts") for case in division.test]
    for case, part in tqdm(jobs, desc="Converting", unit="case"):
        try:
            image, kind = _read_image(case)
            kinds.setdefault(kind, case)
            mask = _read_mask(case, image)
            values.append(None if labels.classes or labels.threshold is not None else foreground_value(mask))
            label = labels.convert(mask, None if case.field is None else _read_mask(case, image, case.field))
        except OsasisError as error:
            problems.append(OsasisError(f"{case.mask}: {error.rule}", found=error.found, remedy=error.remedy))
            continue
        name = names[case.key]
        _write_pair(folder / f"images{part}" / f"{name}_0000", folder / f"labels{part}" / name, image, label, kind)
    _raise_together(problems)
    require_one_foreground(values)
    if len(kinds) > 1:
        raise OsasisError(
            "All images of a dataset must be of one kind",
            found=" and ".join(f"{kind} ({case.image})" for kind, case in kinds.items()),
            remedy="Convert the fewer ones, or make two datasets.",
        )
    return next(iter(kinds))


def _read_image(case: Case) -> tuple[LoadedImage, Kind]:
    loaded = read_any(case.image)
    array = loaded.array
    if loaded.geometry is not None or array.ndim == 4:
        if array.shape[0] == 1:
            return loaded, Kind(1, ".nii.gz")
    elif array.shape[0] in (1, 3) and (array.dtype == np.uint8 or (len(array) == 1 and array.dtype == np.uint16)):
        return loaded, Kind(array.shape[0], ".png")
    raise OsasisError(
        "Images must be 8-bit colour or 8- or 16-bit grey pictures, or volumes of one channel",
        found=f"{array.dtype} {array.shape} in {case.image}",
        remedy="Convert them; several channels of a scan become several files in nnU-Net's raw format.",
    )


def _read_mask(case: Case, image: LoadedImage, path: Path | None = None) -> np.ndarray:
    mask = read_any(path or case.mask).array
    if mask.shape[1:] != image.array.shape[1:]:
        raise OsasisError(
            "Image and mask must have the same size",
            found=f"{image.array.shape[1:]} and {mask.shape[1:]}",
            remedy="Resample the mask with nearest-neighbour interpolation.",
        )
    return mask


def _write_pair(image_path: Path, label_path: Path, image: LoadedImage, label: np.ndarray, kind: Kind) -> None:
    """Both paths without ending."""
    for path, array in ((image_path, image.array), (label_path, label[None])):
        file = path.with_name(path.name + kind.ending)
        if kind.ending == ".png":
            write_png(file, array[0] if len(array) == 1 else np.moveaxis(array, 0, -1))
        elif path is image_path and image_suffix(image.path) == kind.ending:
            atomic_write_bytes(file, image.path.read_bytes())
        else:
            kept = image.kept if path is image_path else as_labels(image.kept)
            write_like(LoadedImage(array, image.path, image.geometry, kept), array, file)


def _raise_together(problems: list[OsasisError]) -> None:
    if not problems:
        return
    first = problems[0]
    shown = [f"{p.rule}, got {p.found}" for p in problems[1:MOST_SHOWN]]
    more = [f"and {len(problems) - MOST_SHOWN} more"] if len(problems) > MOST_SHOWN else []
    raise OsasisError(first.rule, found="; ".join([str(first.found), *shown, *more]), remedy=first.remedy)


def _write_tables(
    folder: Path, division: Division, names: dict[str, str], request: Request, kind: Kind, hashes: dict[Path, str]
) -> None:
    """dataset.json, splits_final.json, and cases.json: where every case comes from."""
    chosen = request.channel_names
    if chosen is not None and len(chosen) != kind.channels:
        raise OsasisError(f"--channel-names must name the {kind.channels} channel(s)", found=" ".join(chosen))
    if chosen is None:
        channels = dict(CHANNEL_NAMES) if kind.channels == 3 else {"0": GREY_CHANNEL}
    else:
        channels = {str(i): name for i, name in enumerate(chosen)}
    splits = [{part: [names[key] for key in keys] for part, keys in fold.items()} for fold in division.folds]
    described = {
        "channel_names": channels,
        "labels": request.labels.names(),
        "numTraining": len(division.training),
        "file_ending": kind.ending,
        **request.facts,
    }
    atomic_write_json(folder / "dataset.json", described)
    atomic_write_json(folder / "splits_final.json", splits)
    records = {
        names[case.key]: {
            "image": case.image.name,
            "image_sha256": hashes[case.image],
            "mask": case.mask.name,
            "mask_sha256": hashes[case.mask],
            "group": case.group,
        }
        for case in (*division.training, *division.test)
    }
    atomic_write_json(folder / "cases.json", records)


def _publish(workbench: Path, folder: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    workbench.chmod(0o777 & ~umask)  # mkdtemp makes private folders; datasets should be as shared as others
    aside = folder.with_name(f".{folder.name}.replaced")
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)
    os.replace(workbench, folder)
    sync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)
