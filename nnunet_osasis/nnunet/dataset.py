"""A training dataset whose cases sometimes come stylized."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import blosc2
import numpy as np

from nnunet_osasis.errors import OsasisError


class StylizedDataset:
    """Wraps nnU-Net's training dataset: :meth:`load_case` returns the stylized image with a given probability.

    Segmentation, previous stage and properties are always the original's. The draws depend on ``seed``, ``stream`` and
    the name of the worker process, so workers differ and a single-process run repeats.

    Args:
        original: nnU-Net's dataset.
        image_path: gives the file of a case's stylized image.
        probability: of a stylized image, in [0, 1].
        seed: of the draws.
        stream: numbers that make the draws of this run differ, such as the rank and the first epoch.
    """

    def __init__(
        self,
        original: Any,
        image_path: Callable[[str], Path],
        *,
        probability: float,
        seed: int,
        stream: tuple[int, ...] = (),
    ) -> None:
        self.original = original
        self.identifiers = original.identifiers
        self.source_folder = original.source_folder
        self.folder_with_segs_from_previous_stage = original.folder_with_segs_from_previous_stage
        self._images = {key: str(image_path(key)) for key in original.identifiers}
        self._probability = probability
        self._seed = (seed, *stream)
        self._process: int | None = None  # that owns the generator
        self._generator: np.random.Generator | None = None

    def __getitem__(self, identifier: str) -> tuple[Any, Any, Any, dict]:
        return self.load_case(identifier)

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict]:
        """``(data, seg, seg_prev, properties)`` of one case, as nnU-Net's own datasets give them."""
        data, seg, seg_prev, properties = self.original.load_case(identifier)
        if self._draw() < self._probability:
            data = self.load_stylized(identifier)
        return data, seg, seg_prev, properties

    def load_stylized(self, identifier: str) -> blosc2.NDArray:
        """The stylized image ``(C, Z, Y, X)``, opened as nnU-Net opens its own (memory-mapped except on Windows).

        Raises:
            OsasisError: when the file is missing or damaged; the cache was whole when training began.
        """
        mapped = {} if os.name == "nt" else {"mmap_mode": "r"}
        path = self._images[identifier]
        try:
            return blosc2.open(urlpath=path, mode="r", dparams={"nthreads": 1}, **mapped)
        except (OSError, RuntimeError) as error:
            raise OsasisError(
                "The cache of stylized cases must stay while a training runs",
                found=f"{error} at {path}",
                remedy="Start the training again with --c: the case is made anew.",
            ) from error

    def _draw(self) -> float:
        # A forked worker inherits the generator of its parent, but must draw other numbers.
        if self._generator is None or self._process != os.getpid():
            self._process = os.getpid()
            worker = multiprocessing.current_process().name
            self._generator = np.random.default_rng((*self._seed, crc32(worker.encode())))
        return float(self._generator.random())
