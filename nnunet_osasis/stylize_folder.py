"""Stylize a folder of images: resumable, each result whole or absent, a manifest of what was made from what."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.image_io import image_stem, image_suffix, list_images, read_image, write_like
from nnunet_osasis.storage import atomic_write, atomic_write_json, ensure_writable, read_json, sha256_of_file
from nnunet_osasis.stylizer import OSASISStylizer
from nnunet_osasis.volume import slice_axis, slices_back, slices_first

MANIFEST = "osasis_manifest.json"


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
) -> int:
    """Stylize every image of ``source`` into ``output``, dtype and geometry kept; returns how many were made anew.

    What an earlier run with the same stylizer and options made from an unchanged file is kept. ``masks`` are copied
    unchanged to ``output/masks`` when there is one of the same name and size for every image.

    Raises:
        OsasisError: unreadable input (results made before it are kept), ``output`` inside ``source``'s own folder,
            two sources with one result name, or a manifest of another stylizer or option.
    """
    files = list_images(source)
    if output.resolve() == source.resolve():
        raise OsasisError("The output must be another folder than the input", found=output, remedy="Choose another.")
    names = [output_name(path) for path in files]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise OsasisError("Each image needs a name of its own", found=f"two that become {twice[0]}")
    settings = {"stylizer": stylizer.fingerprint, "strength": strength, "direction": direction}
    manifest: dict[str, Any] = {"settings": settings, "images": {}}
    if (output / MANIFEST).is_file():
        manifest = read_json(output / MANIFEST, what="The output's manifest")
        if manifest.get("settings") != settings:
            raise OsasisError(
                "The output must not hold results of another stylizer or other options",
                found=f"a manifest of other settings in {output}",
                remedy="Choose another output folder.",
            )
    ensure_writable(output)
    pairs = _masks_of(files, masks) if masks is not None else {}
    made = 0
    for path, name in zip(tqdm(files, desc="stylize", unit="image", dynamic_ncols=True), names, strict=True):
        target, digest = output / name, sha256_of_file(path)
        known = manifest["images"].get(name)
        if known and known["source"] == digest and target.is_file() and sha256_of_file(target) == known["result"]:
            continue
        loaded = read_image(path)
        try:
            axis = slice_axis(loaded.spacing, loaded.array.shape[1:])
            sliced = slices_first(loaded.array, axis)
            stylized = stylizer.stylize_array(sliced, strength=strength, direction=direction)
            stylized = slices_back(stylized, axis)
        except OsasisError as error:
            raise OsasisError(
                f"{path} cannot be stylized: {error.rule}", found=error.found, remedy=error.remedy
            ) from error
        if path in pairs:
            _check_mask(loaded.array.shape, pairs[path])
            mask = pairs[path]
            atomic_write(output / "masks" / mask.name, partial(shutil.copyfile, mask))
        write_like(loaded, stylized, target)
        manifest["images"][name] = {"source": digest, "result": sha256_of_file(target)}
        atomic_write_json(output / MANIFEST, manifest)
        made += 1
    return made


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
