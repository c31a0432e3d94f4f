"""Restyle a folder of images: resumable, in parts, each result whole or absent, a manifest of what came from what."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import Decision, GateResult, Segmenter, StructureGate
from nnunet_osasis.gate.audit import FOLDER, WORST, AuditSummary, in_short, path_in, summarize_cases, write_audit
from nnunet_osasis.gate.calibration import chosen_indices
from nnunet_osasis.gate.pictures import PICTURE, SHOWN_PX, as_picture, save_worst
from nnunet_osasis.images.gray import as_gray, to_gray
from nnunet_osasis.images.image import NATURAL_SUFFIXES, LoadedImage, image_stem, image_suffix
from nnunet_osasis.images.io import files_of, list_images, read_image, write_like
from nnunet_osasis.images.masks import label_map, mask_on, plane_of
from nnunet_osasis.images.nifti import as_labels
from nnunet_osasis.images.pairs import by_name, images_by_stem, require_partners
from nnunet_osasis.images.pictures import ORIENTATION_KEY, orientation_entry, values_in
from nnunet_osasis.images.slices import Cut, best_slice, cut_of, read_in_slices, slices_back, slices_first
from nnunet_osasis.maps.field_of_view import spaced
from nnunet_osasis.runtime.distributed import Shard
from nnunet_osasis.runtime.folders import require_apart
from nnunet_osasis.runtime.storage import atomic_write, remove_stale_temporaries, sha256_of_file, sha256_of_json
from nnunet_osasis.stylizer.archive.prefetch import prefetched
from nnunet_osasis.stylizer.archive.record import (
    Log,
    audit_of,
    audits_in,
    digest_of_entry,
    known_digests,
    names_on_record,
)
from nnunet_osasis.stylizer.archive.shards import claim_folder
from nnunet_osasis.stylizer.gating import stored_gate
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

LARGE_VALUES = 2**25
"""Values (pixels times channels) of a picture from which it must be the only one in memory."""


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
    gray: bool = False,
) -> int:
    """Restyle every image of ``source`` into ``output``, dtype and geometry kept.

    Every result is compared with its source by the structure gate: what fails is weakened, and kept as it is when
    that fails too. ``output/osasis_audit`` has the audit trail and a picture of the worst cases.

    What an earlier run with the same stylizer and options made from an unchanged file is kept, if it is still what
    was written then.

    While images are made, memory holds their names, 16 bytes for each result of an earlier run, and three images; at
    its start and its end a run also holds the manifest, a few KB for each image on record. Pictures are read and
    written while others are computed, volumes one after the other.

    Args:
        stylizer: the stylizer.
        source: folder of images.
        output: folder of results.
        strength: in [0, 1]; None takes the stylizer's own.
        direction: ``source_to_target`` or ``target_to_source``.
        masks: folder with a mask of the same name and size for every image. Masks are copied unchanged to
            ``output/masks`` (onto the image's grid where they are stored in another voxel order), and show the gate
            where lesions are.
        gated: False leaves the gate out.
        segmenter: a frozen segmenter that the gate asks as well.
        share: the part of the sorted list to make; None is all of it. Parts of one list may be at work in ``output``
            at once, on several machines too; the last one to end writes the manifest of all. Without ``share`` one
            process at a time works there.
        progress: show a bar.
        gray: make one channel of images of three; so are the results.

    Returns:
        How many images were made anew.

    Raises:
        OsasisError: unreadable, vanished or changing input, told when all other images are done; ``output`` is
            ``source`` or ``masks`` or lies in one of them, it is in use by another process for the same images, two
            sources with one result name, or a manifest of another stylizer or option.
    """
    share = share or Shard()
    files = list_images(source)
    require_apart(output, [source, *([] if masks is None else [masks])], parts=("masks", FOLDER))
    names = [output_name(path) for path in files]
    if len(set(names)) != len(names):
        twice = min(name for name, count in Counter(names).items() if count > 1)
        raise OsasisError(
            "Each image needs a name of its own", found=f"two that become {twice}", remedy="Rename one of them."
        )
    pairs = _masks_of(files, masks) if masks is not None else {}
    settings: dict[str, Any] = {"stylizer": stylizer.fingerprint, "strength": strength, "direction": direction}
    settings |= {"gray": True} if gray else {}
    asked = None if segmenter is None else segmenter.fingerprint
    work = sha256_of_json([names, settings, masks is not None, gated, asked])
    made = 0
    with claim_folder(output, share, work) as claim:
        for folder in ("masks", FOLDER):
            remove_stale_temporaries(output / folder)
        gate = _gate(stylizer, files, output, segmenter, gray=gray) if gated else None
        settings |= {} if gate is None else {"gate": gate.identity()}
        mine = dict(zip(share.select(files), share.select(names), strict=True))
        known = known_digests(output, settings, set(mine.values()), gated=gated)
        claim.log.settings(settings)
        run = _Run(
            stylizer, output, mine, gate, strength, direction, pairs, known, claim.log, audit_of(output, share), gray
        )
        steps = prefetched(share.select(files), run.read, run.stylize, run.write, alone=_is_large)
        title = "stylize" if share.count == 1 else f"stylize, {share}"
        bar = tqdm(steps, total=len(mine), desc=title, unit="image", dynamic_ncols=True, disable=not progress)
        with closing(steps):
            for to_do in bar:
                made += to_do
    alone = share.count == 1 or (not claim.others and names_on_record(output).issuperset(names))
    if gate is not None and alone and not (output / FOLDER / PICTURE).is_file():
        _show_worst(run, dict(zip(names, files, strict=True)))
    _require_no_bad(run.bad, len(mine))
    return made


def _require_no_bad(bad: list[OsasisError], count: int) -> None:
    """Tell, when all else is done, which images could not be restyled."""
    if 1 < len(bad) < count:
        shown = "; ".join(f"{error.rule}, got {error.found}" for error in bad[:MOST_SHOWN])
        more = f"; and {len(bad) - MOST_SHOWN} more" if len(bad) > MOST_SHOWN else ""
        rule = f"All images must be fit to be stylized; {len(bad)} of {count} are not, the others are done"
        raise OsasisError(rule, found=f"{shown}{more}", remedy=bad[0].remedy)
    if bad:
        raise bad[0]


MOST_SHOWN = 5
"""Number of bad images that a message names."""


@dataclass
class _Image:
    """An image to restyle.

    Attributes:
        loaded: the image.
        axis: how it is cut into slices.
        labels: its mask's labels, ``(H, W)`` or ``(D, H, W)``, if the gate looks at them.
        entry: digests for the log.
    """

    loaded: LoadedImage
    axis: Cut
    labels: np.ndarray | None
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
    masks: dict[Path, Path]
    known: dict[str, bytes]
    log: Log
    audit: Path
    gray: bool = False
    bad: list[OsasisError] = field(default_factory=list)

    def load(self, path: Path) -> LoadedImage:
        """The image as it is restyled."""
        return as_gray(read_image(path)) if self.gray else read_image(path)

    def read(self, path: Path) -> _Image | None:
        """The image and its mask with their digests; None when its result is on record, or when it is bad."""
        try:
            image, copy_mask = self._read(path)
        except OsasisError as error:
            self.bad.append(error)
            return None
        if copy_mask is not None:  # a disk that is full is no fault of the image
            copy_mask()
        return image

    def _read(self, path: Path) -> tuple[_Image | None, Callable[[], None] | None]:
        """The image, if it is to be restyled, and what copies its mask, if that is not there."""
        name, before = self.names[path], _stamps(path)
        entry = {"source": _digest_of(path)}
        if path in self.masks:
            mask = _digest_of(self.masks[path])
            if self.gate is not None:  # which looks at it
                entry["mask"] = mask
        target = self.output / name
        known = self.known.get(name) if target.is_file() else None
        done = known and digest_of_entry(entry | {"result": sha256_of_file(target)}) == known
        copied = path not in self.masks or self._is_copied(path, mask)
        if done and copied:
            return None, None
        loaded = self.load(path)
        if _stamps(path) != before:
            raise OsasisError(
                "An image must not change while it is stylized",
                found=path,
                remedy="Run the same command again when it is complete; finished results are kept.",
            )
        axis, labels, copy_mask = cut_of(loaded), None, None
        if path in self.masks and (self.gate is not None or not copied):
            values = mask_on(loaded, stored := read_image(self.masks[path]))
            if self.gate is not None:
                labels = slices_first(self._label_map(path, values)[None], axis)[0]
            if not copied:
                copy_mask = partial(_copy_mask, stored, values, loaded, self.output / "masks")
        return None if done else _Image(loaded, axis, labels, entry), copy_mask

    def _label_map(self, path: Path, values: np.ndarray) -> np.ndarray:
        try:
            return label_map(values)
        except OsasisError as error:
            raise OsasisError(error.rule, found=f"{error.found} in {self.masks[path]}", remedy=error.remedy) from None

    def stylize(self, image: _Image) -> GateResult | None:
        """What may be used of it; None when it is bad."""
        try:
            return self.restyled(image.loaded, image.axis, image.labels, self.gate)
        except OsasisError as error:
            self.bad.append(error)
            return None

    def restyled(
        self, loaded: LoadedImage, axis: Cut, labels: np.ndarray | None, gate: StructureGate | None
    ) -> GateResult:
        """Volumes are cut along ``axis``. The result has the axes of ``loaded.array``."""
        try:
            sliced = slices_first(loaded.array, axis)
            amount = self.stylizer.config.strength if self.strength is None else self.strength
            dtype = sliced.dtype if sliced.dtype.kind in "ui" else np.dtype(np.float32)
            changed = self.stylizer.stylize_array(sliced, strength=amount, direction=self.direction, dtype=dtype)
            if gate is None:
                result = GateResult(changed, Decision("full", amount, amount, {}, {}))
            else:
                result = gate(sliced, changed, amount, labels)
        except OsasisError as error:
            raise OsasisError(
                f"{loaded.path} cannot be stylized: {error.rule}", found=error.found, remedy=error.remedy
            ) from error
        if result.decision.strength == 0:  # as stored: not even rounded to float32
            return replace(result, image=loaded.array)
        return replace(result, image=slices_back(result.image, axis))

    def write(self, image: _Image, result: GateResult | None) -> None:
        """The result, then the audit, then the log: what is on record is there."""
        if result is None:
            return
        name = self.names[image.loaded.path]
        write_like(image.loaded, result.image, self.output / name)
        entry = image.entry | {"result": sha256_of_file(self.output / name)}
        if self.gate is not None:
            (self.output / FOLDER / PICTURE).unlink(missing_ok=True)  # it shows another state now
            facts = {"source_sha256": entry["source"], "result_sha256": entry["result"]}
            facts |= {"stylizer": self.stylizer.fingerprint, "direction": self.direction}
            write_audit(self.audit, name, result.decision, **facts)
        self.log.add(name, entry)

    def _copy_of(self, path: Path) -> Path:
        return self.output / "masks" / self.masks[path].name

    def _is_copied(self, path: Path, digest: str) -> bool:
        copy = self._copy_of(path)
        if not copy.is_file():
            return False
        try:
            return _digest_of(copy) == digest
        except OsasisError:  # a header whose data are missing or damaged
            return False


def _is_large(path: Path) -> bool:
    """Volumes, TIFF files, which may be stacks, and large pictures: one at a time in memory."""
    return image_suffix(path) not in NATURAL_SUFFIXES or values_in(path) > LARGE_VALUES


def on_record(source: Path, output: Path) -> tuple[int, int]:
    """How many images of ``source`` have a result on record, by all parts so far, and how many there are."""
    names = {output_name(path) for path in list_images(source)}
    return len(names & names_on_record(output)), len(names)


def decisions_in(output: Path) -> list[dict[str, Any]]:
    """The decision about each case, without scores; that of a part at work is the newer one.

    The folder's audit is read once more in the end: parts' audits may have been merged into it meanwhile.
    """
    summaries = summarize_cases(audits_in(output))
    summaries = summarize_cases([path_in(output)]) | summaries
    return [summary.row(case) for case, summary in summaries.items()]


def _gate(
    stylizer: OSASISStylizer, files: list[Path], output: Path, segmenter: Segmenter | None, *, gray: bool
) -> StructureGate:
    """The stylizer's gate; thresholds that had to be measured on these images are kept for later runs and parts."""

    def images() -> list[np.ndarray]:
        arrays = (read_in_slices(files[i]) for i in chosen_indices(len(files)))
        return [best_slice(to_gray(array) if gray else array).copy() for array in arrays]

    return stored_gate(output / FOLDER / "gate.json", stylizer, images, segmenter=segmenter)


def _show_worst(run: _Run, files: dict[str, Path]) -> None:
    """Draw the worst cases, made again at full strength to show what was refused."""

    def by_badness(case: tuple[str, AuditSummary]) -> tuple[Any, str]:
        return case[1].badness, case[0]

    cases = []
    summaries = [(case, summary) for case, summary in summarize_cases(audits_in(run.output)).items() if case in files]
    for case, summary in sorted(summaries, key=by_badness)[:WORST]:
        loaded = run.load(files[case])
        if loaded.array.ndim == 3:  # no more of a large picture is shown
            loaded = replace(loaded, array=spaced(loaded.array, SHOWN_PX))
        axis = cut_of(loaded)
        full = run.restyled(loaded, axis, None, None).image
        used = read_image(run.output / case).array
        before, at_full, at_last = as_picture(*(slices_first(array, axis) for array in (loaded.array, full, used)))
        cases.append((in_short(summary.row(case)), before, at_full, at_last))
    if cases:
        save_worst(run.output / FOLDER / PICTURE, cases, run.stylizer.config.intensity)


def _digest_of(path: Path) -> str:
    """SHA-256 (hex) of all files the image is stored in (a header and its data)."""
    try:
        digests = [sha256_of_file(part) for part in files_of(path)]
    except OSError as error:
        raise _vanished(path, error) from error
    return digests[0] if len(digests) == 1 else sha256_of_json(digests)


def _stamps(path: Path) -> list[tuple[int, int, int]]:
    """Time of change, size and identity of all files of an image: they change with its content."""
    try:
        stats = [os.stat(part) for part in files_of(path)]
    except OSError as error:
        raise _vanished(path, error) from error
    return [(stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats]


def _vanished(path: Path, error: OSError) -> OsasisError:
    return OsasisError(
        "The images must stay while they are stylized",
        found=f"{error.strerror} at {path}",
        remedy="Put it back, or run the same command again without it; finished results are kept.",
    )


def _masks_of(files: list[Path], folder: Path) -> dict[Path, Path]:
    images, masks = by_name((image_stem(path), path) for path in files), images_by_stem(folder)
    require_partners(images, masks, both=False)
    return {path: masks[stem] for stem, path in images.items()}


def _copy_mask(mask: LoadedImage, values: np.ndarray, image: LoadedImage, folder: Path) -> None:
    """Put a mask beside its image's result: its files as they are, or anew where they do not fit pixel by pixel.

    They do not where image and mask are stored in two voxel orders, or were turned by two orientation tags.
    """
    turned = [loaded.kept.get(ORIENTATION_KEY, 1) for loaded in (image, mask)]
    if turned[0] == turned[1] and np.array_equal(plane_of(mask), values):
        for part in reversed(files_of(mask.path)):  # a header comes after the file that it names
            atomic_write(folder / part.name, partial(shutil.copyfile, part))
        return
    name = (
        f"{image_stem(mask.path)}{'.png' if image_suffix(mask.path) in ('.jpg', '.jpeg') else image_suffix(mask.path)}"
    )
    kept = as_labels(image.kept) | orientation_entry(turned[0])
    write_like(LoadedImage(values[None], mask.path, image.geometry, kept), values[None], folder / name)
