"""One stylized case as nnU-Net stores its own: same format, same blocks and chunks."""

from __future__ import annotations

import os
from pathlib import Path

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import (
    comp_blosc2_params,
    infer_dataset_class,
    nnUNetDatasetBlosc2,
)

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.configuration import NnunetConfiguration

Layout = tuple[tuple[int, ...], tuple[int, ...]]
"""Blocks and chunks."""


def layout_of(setup: NnunetConfiguration, key: str, image: np.ndarray) -> Layout:
    """Those of the original file, so that reading a patch costs the same.

    Raises ``OsasisError`` when the original has another shape than ``image`` ``(C, Z, Y, X)``.
    """
    folder = str(setup.preprocessed_folder / setup.manager.data_identifier)
    original = infer_dataset_class(folder)(folder, [key]).load_case(key)[0]
    if tuple(original.shape) != image.shape:
        raise OsasisError(
            f"A stylized case must have its original's shape {tuple(original.shape)}",
            found=f"{image.shape} for {key}",
            remedy=f"The raw image changed: run nnUNetv2_preprocess -d {int(setup.dataset[7:10])} again.",
        )
    if hasattr(original, "chunks") and hasattr(original, "blocks"):
        return tuple(original.blocks), tuple(original.chunks)
    return comp_blosc2_params(image.shape, tuple(setup.manager.patch_size), image.itemsize)


def write_case(folder: Path, key: str, image: np.ndarray, layout: Layout) -> Path:
    """Write ``image`` ``(C, Z, Y, X)`` through nnU-Net into ``folder``, read it back, and flush it to the disk.

    Raises ``OSError`` or blosc2's ``RuntimeError`` when it cannot be written.
    """
    blocks, chunks = layout
    unused = np.zeros((1, 1, 1, 1), np.int8)  # save_case also wants a segmentation; it stays where it is
    written = folder / f"{key}.b2nd"
    nnUNetDatasetBlosc2.save_case(
        image,
        unused,
        {},
        str(folder / key),
        chunks=chunks,
        blocks=blocks,
        chunks_seg=unused.shape,
        blocks_seg=unused.shape,
    )
    if not np.array_equal(blosc2.open(urlpath=str(written), mode="r")[:], image):
        raise OSError(f"{written} reads back differently")
    with open(written, "rb+") as stream:
        os.fsync(stream.fileno())
    return written
