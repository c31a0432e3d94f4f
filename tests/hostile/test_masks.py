"""Masks, label maps and probabilities that are none, or that belong to something else."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.evaluation.experiment.datasets import Case
from nnunet_osasis.evaluation.metrics.folder import score_folder
from nnunet_osasis.evaluation.metrics.reading import read_probabilities
from nnunet_osasis.nnunet.prepare.labels import LabelRule
from nnunet_osasis.nnunet.prepare.reading import read_any
from nnunet_osasis.stylizer.archive.run import stylize_folder

from .files import encoded, picture, tiff
from .harness import Bad, bad

BLOB = np.zeros((18, 14), np.uint8)
BLOB[4:9, 5:11] = 255
RGB = picture()


def masks() -> dict[str, tuple[str, bytes]]:
    """File name and content of what cannot be the mask of an 18 x 14 picture."""
    noise = np.random.default_rng(3).integers(0, 256, BLOB.shape).astype(np.uint8)
    return {
        "another size": ("m.png", encoded(BLOB[:9], "PNG")), "turned": ("m.png", encoded(BLOB.T.copy(), "PNG")),
        "one pixel": ("m.png", encoded(BLOB[:1, :1], "PNG")), "a photograph": ("m.png", encoded(noise, "PNG")),
        "colours": ("m.png", encoded(RGB, "PNG")), "half values": ("m.tif", tiff((BLOB / 300).astype(np.float32))),
        "NaN": ("m.tif", tiff(np.full(BLOB.shape, np.nan, np.float32))), "nothing": ("m.png", b""),
        "a text": ("m.png", b"mask"),
        "half a file": ("m.png", encoded(BLOB, "PNG")[:60]), "a stack": ("m.tif", tiff(np.stack([BLOB] * 3),
        photometric="minisblack")),
        "complex numbers": ("m.tif", tiff(BLOB.astype(np.complex64))), "negative labels": ("m.tif",
        tiff(-BLOB.astype(np.int16))),
    }  # fmt: skip


USES: dict[str, tuple[str, ...]] = {
    "an experiment": tuple(masks()),
    "scoring": tuple(name for name in masks() if name not in ("colours",)),
    "conversion": ("a photograph", "colours", "NaN", "nothing", "a text", "half a file", "complex numbers"),
    "osasis-stylize": ("another size", "turned", "one pixel", "NaN", "nothing", "a text", "half a file", "a stack",
    "complex numbers"),
}  # fmt: skip


class Made:
    """A stylizer for the calls below, which are named before there is one."""

    stylizer: OSASISStylizer | None = None


@pytest.fixture(autouse=True)
def _one_stylizer(stylizer_folder: Path) -> None:
    Made.stylizer = Made.stylizer or OSASISStylizer.from_pretrained(stylizer_folder)


def _with_mask(use: str, name: str) -> Callable[[Path], Callable[[], Any]]:
    def make(folder: Path) -> Callable[[], Any]:
        file, data = masks()[name]
        for part in ("images", "masks", "truth"):
            (folder / part).mkdir()
        image, mask = folder / "images/m.png", folder / "masks" / file
        image.write_bytes(encoded(RGB, "PNG"))
        mask.write_bytes(data)
        (folder / "truth/m.png").write_bytes(encoded(BLOB, "PNG"))
        calls: dict[str, Callable[[], Any]] = {
            "an experiment": lambda: Case("m", image, mask, "m").mask(32),
            "scoring": lambda: score_folder(folder / "truth", folder / "masks", progress=False),
            "conversion": lambda: LabelRule().convert(read_any(mask).array),
            "osasis-stylize": lambda: stylize_folder(Made.stylizer, folder / "images", folder / "out",
            masks=folder / "masks"),  # type: ignore[arg-type]
        }  # fmt: skip
        return calls[use]

    return make


def mask_cases() -> list[Bad]:
    """Every reader of masks meets every mask it must not take."""
    cases = [Bad(f"{use} with {name}", _with_mask(use, name)) for use, names in USES.items() for name in names]

    def empty(folder: Path) -> Callable[[], Any]:
        for part in ("a", "b"):
            (folder / part).mkdir()
            (folder / part / "m.png").write_bytes(encoded(np.zeros_like(BLOB), "PNG"))
        return lambda: score_folder(folder / "a", folder / "b", metrics=["dice", "mae"], progress=False)

    def no_lesion_scores_one(found: Any) -> None:
        assert found.scores[0].values == {"dice": 1.0, "mae": 0.0}

    def other_spacing(folder: Path) -> Callable[[], Any]:
        for part, step in (("a", 1.0), ("b", 2.0)):
            (folder / part).mkdir()
            image = sitk.GetImageFromArray(np.ones((3, 5, 4), np.uint8))
            image.SetSpacing((1.0, 1.0, step))
            sitk.WriteImage(image, str(folder / part / "m.nii.gz"))
        return lambda: score_folder(folder / "a", folder / "b", progress=False)

    return [
        *cases,
        Bad("scoring of empty masks", empty, no_lesion_scores_one),
        Bad("scoring with another spacing", other_spacing),
    ]


def _npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _declared(shape: str, dtype: str = "<f4") -> bytes:
    """An archive whose array says it has ``shape`` and holds a few bytes."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(
            "probabilities.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)
        )
    return stream.getvalue()


def probability_cases() -> list[Bad]:
    """nnU-Net's ``.npz`` files."""
    fine = np.full((2, 1, 6, 5), 0.5, np.float32)
    whole = _npz(probabilities=fine)
    contents = {
        "another name": _npz(p=fine), "a pickle": _npz(probabilities=np.array([{"a": 1}], dtype=object)),
        "nothing": b"",
        "text": b"hello", "no archive": whole[:40], "half": whole[: len(whole) // 2],
        "two axes": _npz(probabilities=fine[0, 0]),
        "six axes": _npz(probabilities=fine[None, None]), "NaN": _npz(probabilities=fine * np.nan),
        "above one": _npz(probabilities=fine * 3),
        "below zero": _npz(probabilities=-fine), "infinity": _npz(probabilities=fine * np.inf),
        "no values": _npz(probabilities=fine[:, :, :0]),
        "texts": _npz(probabilities=np.full((2, 3, 3), "x")), "complex numbers": _npz(probabilities=fine + 1j),
        "an array without a zip": fine.tobytes(), "10 ** 15 values": _declared("(1000, 1000000, 1000000)"),
        "a negative side": _declared("(2, -3, 4)"), "too few bytes": _declared("(2, 300, 400)"),
        "code for a shape": _declared("__import__('os')"),
        "a side of 2 ** 70": _declared(f"({2**70},)"), "an unknown type": _declared("(2, 2, 2)", "<q9"),
        "objects": _declared("(2, 2, 2)", "|O"),
    }  # fmt: skip

    def make(data: bytes) -> Callable[[Path], Callable[[], Any]]:
        def write(folder: Path) -> Callable[[], Any]:
            (folder / "m.npz").write_bytes(data)
            return lambda: read_probabilities(folder / "m.npz")

        return write

    return [Bad(f"probabilities: {name}", make(data)) for name, data in contents.items()]


MASKS, MAPS = mask_cases(), probability_cases()
CASES = [*MASKS, *MAPS]


@bad(MASKS)
def test_a_mask_that_does_not_fit_is_refused_where_it_is_used(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("masks", case)


@bad(MAPS)
def test_probabilities_are_numbers_of_a_size_that_fits(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("probabilities", case)
