"""Stylize a folder of images: resumable, each result whole or absent, a manifest of what was made from what."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import Decision, Gated, Segmenter, StructureGate
from nnunet_osasis.gate.audit import FOLDER, WORST, audited_results, badness, path_in, read_audit, write_audit
from nnunet_osasis.gate.calibration import IMAGES
from nnunet_osasis.gate.of_stylizer import stored_gate
from nnunet_osasis.gate.pictures import PICTURE, as_picture, save_worst
from nnunet_osasis.image_io import LoadedImage, files_of, image_stem, image_suffix, list_images, read_image, write_like
from nnunet_osasis.leftovers import clear_leftovers
from nnunet_osasis.locks import output_lock
from nnunet_osasis.sources import best_slice, read_in_slices
from nnunet_osasis.storage import atomic_write, read_sealed_json, sha256_of_file, sha256_of_json, write_sealed_json
from nnunet_osasis.stylizer import OSASISStylizer
from nnunet_osasis.volume import slice_axis, slices_back, slices_first

logger = logging.getLogger(__name__)

MANIFEST = "osasis_manifest.json"
SOFT = 20
"""Values that a mask of labels reaching 255 may have; more are shades."""
_UNSEALED = ("settings", "images")
"""What manifests of earlier versions hold, which had no checksum."""


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
) -> int:
    """Stylize every image of ``source`` into ``output``, dtype and geometry kept; returns how many were made anew.

    Every result is compared with its source by the structure gate: what fails is tried weaker, and kept as it is when
    that fails too. ``output/osasis_audit`` has the audit trail and a picture of the worst cases.

    What an earlier run with the same stylizer and options made from an unchanged file is kept, if it is still what
    was written then. ``masks`` are copied unchanged to ``output/masks`` when there is one of the same name and size
    for every image, and tell the gate where lesions are. One process at a time works in ``output``.

    Args:
        gated: False leaves the gate out. segmenter: a frozen segmenter the gate asks as well.

    Raises:
        OsasisError: unreadable, vanished or changing input (results made before it are kept), ``output`` inside
            ``source``'s own folder or in use by another process, two sources with one result name, or a manifest of
            another stylizer or option.
    """
    files = list_images(source)
    if output.resolve() == source.resolve():
        raise OsasisError("The output must be another folder than the input", found=output, remedy="Choose another.")
    names = [output_name(path) for path in files]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise OsasisError("Each image needs a name of its own", found=f"two that become {twice[0]}")
    pairs = _masks_of(files, masks) if masks is not None else {}
    with output_lock(output, "osasis-stylize"):
        for folder in ("masks", FOLDER):
            clear_leftovers(output / folder)
        gate = _gate(stylizer, files, output, segmenter) if gated else None
        settings: dict[str, Any] = {"stylizer": stylizer.fingerprint, "strength": strength, "direction": direction}
        settings |= {} if gate is None else {"gate": gate.identity()}
        manifest = _manifest(output, settings)
        audited = audited_results(path_in(output)) if gate is not None else None
        made = 0
        for path, name in zip(tqdm(files, desc="stylize", unit="image", dynamic_ncols=True), names, strict=True):
            target, digest = output / name, _digest(path)
            known = manifest["images"].get(name)
            entry = {"source": digest}
            if gate is not None and path in pairs:  # where its lesions are
                entry["mask"] = _digest(pairs[path])
            on_record = audited is None or (known and audited.get(name) == known["result"])
            whole = known and on_record and {key: value for key, value in known.items() if key != "result"} == entry
            if whole and target.is_file() and sha256_of_file(target) == known["result"]:
                _copy_mask(path, pairs, output)
                continue
            loaded = read_image(path)
            if _digest(path) != digest:
                raise OsasisError(
                    "An image must not change while it is stylized",
                    found=path,
                    remedy="Run the same command again when it is complete; finished results are kept.",
                )
            _copy_mask(path, pairs, output)
            result = _stylized(stylizer, loaded, gate, strength, direction, pairs.get(path))
            write_like(loaded, result.image, target)
            entry["result"] = sha256_of_file(target)
            if gate is not None:
                facts = {"source_sha256": digest, "result_sha256": entry["result"], "stylizer": stylizer.fingerprint}
                write_audit(path_in(output), name, result.decision, direction=direction, **facts)
            manifest["images"][name] = entry
            write_sealed_json(output / MANIFEST, manifest)
            made += 1
        if gate is not None and (made or not (output / FOLDER / PICTURE).is_file()):
            _show_worst(stylizer, dict(zip(names, files, strict=True)), output, strength, direction)
    return made


def _gate(stylizer: OSASISStylizer, files: list[Path], output: Path, segmenter: Segmenter | None) -> StructureGate:
    """The stylizer's gate; thresholds that had to be measured on these images are kept for later runs."""

    def images() -> list[np.ndarray]:
        chosen = np.unique(np.linspace(0, len(files) - 1, IMAGES).round().astype(int))
        return [best_slice(read_in_slices(files[i])).copy() for i in chosen]

    return stored_gate(output / FOLDER / "gate.json", stylizer, images, segmenter=segmenter)


def _show_worst(
    stylizer: OSASISStylizer, files: dict[str, Path], output: Path, strength: float | None, direction: str
) -> None:
    """A picture of the worst cases, made again at full strength to show what was refused."""
    rows = [row for row in read_audit(path_in(output)) if row["case"] in files]
    cases = []
    for row in sorted(rows, key=badness)[:WORST]:
        loaded = read_image(files[row["case"]])
        full = _stylized(stylizer, loaded, None, strength, direction, None).image
        used = read_image(output / row["case"]).array
        axis = slice_axis(loaded.spacing, loaded.array.shape[1:])
        sliced = [slices_first(np.asarray(a, np.float32), axis) for a in (loaded.array, full, used)]
        before, at_full, at_last = as_picture(*sliced)
        cases.append((f"{row['case']} ({row['decision']})", before, at_full, at_last))
    if cases:
        save_worst(output / FOLDER / PICTURE, cases, stylizer.config.intensity)


def _manifest(output: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What ``output``'s manifest says; a damaged one counts as none, so that every result is made anew."""
    fresh: dict[str, Any] = {"settings": settings, "images": {}}
    if not (output / MANIFEST).is_file():
        return fresh
    try:
        found = read_sealed_json(output / MANIFEST, what="The output's manifest", unsealed=_UNSEALED)
    except OsasisError as error:
        logger.warning("%s Every result is made anew.", error)
        return fresh
    if found.get("settings") != settings:
        raise OsasisError(
            "The output must not hold results of another stylizer or other options",
            found=f"a manifest of other settings in {output}",
            remedy="Choose another output folder.",
        )
    write_sealed_json(output / MANIFEST, found)  # one of an earlier version gets its checksum
    return found


def _stylized(
    stylizer: OSASISStylizer,
    loaded: LoadedImage,
    gate: StructureGate | None,
    strength: float | None,
    direction: str,
    mask: Path | None,
) -> Gated:
    """Volumes are cut along their axis of coarsest spacing. The result has the axes of ``loaded.array``."""
    try:
        axis = slice_axis(loaded.spacing, loaded.array.shape[1:])
        sliced = slices_first(loaded.array, axis)
        wanted = stylizer.config.strength if strength is None else strength

        def stylize(amount: float) -> np.ndarray:
            return stylizer.stylize_array(sliced, strength=amount, direction=direction)

        if gate is None:
            result = Gated(stylize(wanted), Decision("full", wanted, wanted, {}, {}))
        else:
            labels = None if mask is None else _labels(slices_first(read_image(mask).array, axis))
            result = gate(sliced, stylize, wanted, labels)
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


def _digest(path: Path) -> str:
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


def _copy_mask(path: Path, pairs: dict[Path, Path], output: Path) -> None:
    """Copy the mask of ``path``, if it has one, unless a whole copy is there."""
    if path not in pairs:
        return
    mask, copy = pairs[path], output / "masks" / pairs[path].name
    if copy.is_file() and sha256_of_file(copy) == _digest(mask):
        return
    _check_mask(read_image(path).array.shape, mask)
    atomic_write(copy, partial(shutil.copyfile, mask))


def _masks_of(files: list[Path], masks: Path) -> dict[Path, Path]:
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
