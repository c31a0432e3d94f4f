"""Stylize a folder of images: resumable, in parts, each result whole or absent, a manifest of what came from what.

One image of a folder: its digest, its mask, and what the stylizer and the gate make of it.
"""

from __future__ import annotations

import shutil
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import Decision, GateResult, Segmenter, StructureGate
from nnunet_osasis.gate.audit import FOLDER, WORST, AuditSummary, in_short, path_in, summarize_cases, write_audit
from nnunet_osasis.gate.calibration import chosen_indices
from nnunet_osasis.gate.pictures import PICTURE, as_picture, save_worst
from nnunet_osasis.images.image import NATURAL_SUFFIXES, LoadedImage, image_stem, image_suffix
from nnunet_osasis.images.io import files_of, list_images, read_image, write_like
from nnunet_osasis.images.slices import best_slice, read_in_slices, slice_axis, slices_back, slices_first
from nnunet_osasis.runtime.distributed import Shard
from nnunet_osasis.runtime.storage import atomic_write, remove_stale_temporaries, sha256_of_file, sha256_of_json
from nnunet_osasis.stylizer.archive.prefetch import in_overlap
from nnunet_osasis.stylizer.archive.record import (
    Log,
    audit_of,
    audits_in,
    digest_of_entry,
    known_digests,
    names_on_record,
)
from nnunet_osasis.stylizer.archive.shards import place_in
from nnunet_osasis.stylizer.gating import stored_gate
from nnunet_osasis.stylizer.stylizer import OSASISStylizer


def output_name(path: Path) -> str:
    """The result's file name: the source's, except that lossy JPEG becomes PNG."""
    suffix = image_suffix(path)
    return image_stem(path) + (".png" if suffix in (".jpg", ".jpeg") else path.name[len(image_stem(path)) :])


def stylize_folder(
    stylizer: OSASISStylizer,
    source: Path,
    output: Path,
    *,
    strength: float | None = None,
    direction: str = "source_to_target",
    masks: Path | None = None,
    gated: bool = True,
    segmenter: Segmenter | None = None,
    share: Shard | None = None,
    progress: bool = True,
) -> int:
    """Stylize every image of ``source`` into ``output``, dtype and geometry kept; returns how many were made anew.

    Every result is compared with its source by the structure gate: what fails is tried weaker, and kept as it is when
    that fails too. ``output/osasis_audit`` has the audit trail and a picture of the worst cases.

    What an earlier run with the same stylizer and options made from an unchanged file is kept, if it is still what
    was written then. ``masks`` are copied unchanged to ``output/masks`` when there is one of the same name and size
    for every image, and tell the gate where lesions are.

    While images are made, memory holds their names, 16 bytes for each result of an earlier run, and three images; at
    its start and its end a run also holds the manifest, a few KB for each image on record. Pictures are read and
    written while others are computed, volumes one after the other.

    Args:
        gated: False leaves the gate out. segmenter: a frozen segmenter the gate asks as well.
        share: the part of the sorted list to make; None is all of it. Parts of one list may be at work in ``output``
            at once, on several machines too; the last one to end writes the manifest of all. Without ``share`` one
            process at a time works there.
        progress: show a bar.

    Raises:
        OsasisError: unreadable, vanished or changing input (results made before it are kept), ``output`` inside
            ``source``'s own folder or in use by another process for the same images, two sources with one result
            name, or a manifest of another stylizer or option.
    """
    share = share or Shard()
    files = list_images(source)
    if output.resolve() == source.resolve():
        raise OsasisError("The output must be another folder than the input", found=output, remedy="Choose another.")
    names = [output_name(path) for path in files]
    if len(set(names)) != len(names):
        twice = min(name for name, count in Counter(names).items() if count > 1)
        raise OsasisError(
            "Each image needs a name of its own", found=f"two that become {twice}", remedy="Rename one of them."
        )
    pairs = masks_of(files, masks) if masks is not None else {}
    settings: dict[str, Any] = {"stylizer": stylizer.fingerprint, "strength": strength, "direction": direction}
    asked = None if segmenter is None else segmenter.fingerprint
    made = 0
    with place_in(output, share, sha256_of_json([names, settings, masks is not None, gated, asked])) as place:
        for folder in ("masks", FOLDER):
            remove_stale_temporaries(output / folder)
        gate = _gate(stylizer, files, output, segmenter) if gated else None
        settings |= {} if gate is None else {"gate": gate.identity()}
        mine = dict(zip(share.select(files), share.select(names), strict=True))
        known = known_digests(output, settings, set(mine.values()), gated=gated)
        place.log.settings(settings)
        run = _Run(stylizer, output, mine, gate, strength, direction, pairs, known, place.log, audit_of(output, share))
        steps = in_overlap(share.select(files), run.read, run.stylize, run.write, alone=_is_large)
        title = "stylize" if share.count == 1 else f"stylize, {share}"
        with closing(steps):
            for to_do in tqdm(
                steps, total=len(mine), desc=title, unit="image", dynamic_ncols=True, disable=not progress
            ):
                made += to_do
    alone = share.count == 1 or (not place.others and names_on_record(output).issuperset(names))
    if gate is not None and alone and not (output / FOLDER / PICTURE).is_file():
        _show_worst(stylizer, dict(zip(names, files, strict=True)), output, strength, direction)
    return made


@dataclass
class _Image:
    loaded: LoadedImage
    entry: dict[str, str]


@dataclass
class _Run:
    """The three steps of each image: ``read`` and ``write`` may run in threads of their own."""

    stylizer: OSASISStylizer
    output: Path
    names: dict[Path, str]
    gate: StructureGate | None
    strength: float | None
    direction: str
    pairs: dict[Path, Path]
    known: dict[str, bytes]
    log: Log
    audit: Path

    def read(self, path: Path) -> _Image | None:
        """The image with its digest; None when its result is there, on record, and what was written then."""
        name, digest = self.names[path], digest_of(path)
        entry = {"source": digest}
        if self.gate is not None and path in self.pairs:  # where its lesions are
            entry["mask"] = digest_of(self.pairs[path])
        target = self.output / name
        known = self.known.get(name) if target.is_file() else None
        if known and digest_of_entry(entry | {"result": sha256_of_file(target)}) == known:
            copy_mask(path, self.pairs, self.output)
            return None
        loaded = read_image(path)
        if digest_of(path) != digest:
            raise OsasisError(
                "An image must not change while it is stylized",
                found=path,
                remedy="Run the same command again when it is complete; finished results are kept.",
            )
        copy_mask(path, self.pairs, self.output)
        return _Image(loaded, entry)

    def stylize(self, image: _Image) -> GateResult:
        """What may be used of it."""
        mask = self.pairs.get(image.loaded.path)
        return stylized(self.stylizer, image.loaded, self.gate, self.strength, self.direction, mask)

    def write(self, image: _Image, result: GateResult) -> None:
        """The result, then the audit, then the log: what is on record is there."""
        name = self.names[image.loaded.path]
        write_like(image.loaded, result.image, self.output / name)
        entry = image.entry | {"result": sha256_of_file(self.output / name)}
        if self.gate is not None:
            (self.output / FOLDER / PICTURE).unlink(missing_ok=True)  # it shows another state now
            facts = {"source_sha256": entry["source"], "result_sha256": entry["result"]}
            facts |= {"stylizer": self.stylizer.fingerprint, "direction": self.direction}
            write_audit(self.audit, name, result.decision, **facts)
        self.log.add(name, entry)


def _is_large(path: Path) -> bool:
    """Volumes, and TIFF files, which may be stacks: one at a time in memory."""
    return image_suffix(path) not in NATURAL_SUFFIXES


def on_record(source: Path, output: Path) -> tuple[int, int]:
    """Of how many images of ``source`` all parts so far have put a result on record, and how many there are."""
    names = {output_name(path) for path in list_images(source)}
    return len(names & names_on_record(output)), len(names)


def decisions_in(output: Path) -> list[dict[str, Any]]:
    """What was decided about each case, by parts at work too, whose word is the newer one; no scores.

    The folder's audit is read once more in the end: parts' audits may have been merged into it meanwhile.
    """
    summaries = summarize_cases(audits_in(output))
    summaries = summarize_cases([path_in(output)]) | summaries
    return [summary.row(case) for case, summary in summaries.items()]


def _gate(stylizer: OSASISStylizer, files: list[Path], output: Path, segmenter: Segmenter | None) -> StructureGate:
    """The stylizer's gate; thresholds that had to be measured on these images are kept for later runs and parts."""

    def images() -> list[np.ndarray]:
        return [best_slice(read_in_slices(files[i])).copy() for i in chosen_indices(len(files))]

    return stored_gate(output / FOLDER / "gate.json", stylizer, images, segmenter=segmenter)


def _show_worst(
    stylizer: OSASISStylizer, files: dict[str, Path], output: Path, strength: float | None, direction: str
) -> None:
    """A picture of the worst cases, made again at full strength to show what was refused."""

    def by_badness(case: tuple[str, AuditSummary]) -> tuple[Any, str]:
        return case[1].badness, case[0]

    cases = []
    summaries = [(case, summary) for case, summary in summarize_cases(audits_in(output)).items() if case in files]
    for case, summary in sorted(summaries, key=by_badness)[:WORST]:
        loaded = read_image(files[case])
        full = stylized(stylizer, loaded, None, strength, direction, None).image
        used = read_image(output / case).array
        axis = slice_axis(loaded.spacing, loaded.array.shape[1:])
        sliced = [slices_first(np.asarray(a, np.float32), axis) for a in (loaded.array, full, used)]
        before, at_full, at_last = as_picture(*sliced)
        cases.append((in_short(summary.row(case)), before, at_full, at_last))
    if cases:
        save_worst(output / FOLDER / PICTURE, cases, stylizer.config.intensity)


SOFT = 20
"""Values that a mask of labels reaching 255 may have; more are shades."""


def stylized(
    stylizer: OSASISStylizer,
    loaded: LoadedImage,
    gate: StructureGate | None,
    strength: float | None,
    direction: str,
    mask: Path | None,
) -> GateResult:
    """Volumes are cut along their axis of coarsest spacing. The result has the axes of ``loaded.array``."""
    try:
        axis = slice_axis(loaded.spacing, loaded.array.shape[1:])
        sliced = slices_first(loaded.array, axis)
        amount = stylizer.config.strength if strength is None else strength
        changed = stylizer.stylize_array(sliced, strength=amount, direction=direction)
        if gate is None:
            result = GateResult(changed, Decision("full", amount, amount, {}, {}))
        else:
            labels = None if mask is None else _labels(slices_first(read_image(mask).array, axis))
            result = gate(sliced, changed, amount, labels)
        if result.decision.strength == 0:  # as stored: not even rounded to float32
            return replace(result, image=loaded.array)
        return replace(result, image=slices_back(result.image, axis))
    except OsasisError as error:
        raise OsasisError(
            f"{loaded.path} cannot be stylized: {error.rule}", found=error.found, remedy=error.remedy
        ) from error


def _labels(mask: np.ndarray) -> np.ndarray:
    """Labels of a mask ``(C, ...)``; a picture of grey levels (a soft rim, a JPEG) is cut at half its white."""
    labels = mask.max(axis=0)
    grey = labels.dtype == np.uint8 and labels.max() == 255 and len(np.unique(labels)) > SOFT
    return (labels > 127).astype(np.uint8) if grey else labels


def digest_of(path: Path) -> str:
    """Of all files the image is stored in (a header and its data)."""
    try:
        each = [sha256_of_file(part) for part in files_of(path)]
        return each[0] if len(each) == 1 else sha256_of_json(each)
    except OSError as error:
        raise OsasisError(
            "The images must stay while they are stylized",
            found=f"{error.strerror} at {path}",
            remedy="Put it back, or run the same command again without it; finished results are kept.",
        ) from error


def copy_mask(path: Path, pairs: dict[Path, Path], output: Path) -> None:
    """Copy the mask of ``path``, if it has one, unless a whole copy is there."""
    if path not in pairs:
        return
    mask, copy = pairs[path], output / "masks" / pairs[path].name
    if copy.is_file() and sha256_of_file(copy) == digest_of(mask):
        return
    _check_mask(read_image(path).array.shape, mask)
    atomic_write(copy, partial(shutil.copyfile, mask))


def masks_of(files: list[Path], masks: Path) -> dict[Path, Path]:
    by_stem = {image_stem(path): path for path in list_images(masks)}
    missing = [path.name for path in files if image_stem(path) not in by_stem]
    if missing:
        raise OsasisError(
            "Every image needs a mask of its name", found=f"none for {missing[0]} ({len(missing)} in all)"
        )
    return {path: by_stem[image_stem(path)] for path in files}


def _check_mask(shape: tuple[int, ...], mask: Path) -> None:
    found = read_image(mask).array.shape
    if found[1:] != shape[1:]:
        raise OsasisError(
            "A mask must have its image's size", found=f"{found[1:]} for {shape[1:]} in {mask}", remedy="Resample it."
        )
