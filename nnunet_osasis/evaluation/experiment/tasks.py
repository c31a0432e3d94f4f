"""What the worker processes of an experiment do: stylize the training images, or train one cell; each done once."""

from __future__ import annotations

import logging
import sys
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment import methods
from nnunet_osasis.evaluation.experiment.cells import Cell
from nnunet_osasis.evaluation.experiment.config import Experiment, MethodSpec
from nnunet_osasis.evaluation.experiment.data import Prepared
from nnunet_osasis.evaluation.experiment.edges import edge_shift
from nnunet_osasis.runtime.records import finished, read_sealed_json, write_sealed_json
from nnunet_osasis.runtime.storage import atomic_write, sha256_of_array, sha256_of_file, sha256_of_json

logger = logging.getLogger(__name__)

Maps = dict[str, np.ndarray]
"""Foreground probabilities ``(H, W)`` uint8, 255 is 1, by ``test/case``."""


class Engine(Protocol):
    """Trains one cell and predicts its test images; a function of a module, so that workers can import it."""

    def __call__(
        self,
        cell: Cell,
        experiment: Experiment,
        prepared: Prepared,
        *,
        styled: Path | None,
        root: Path,
        key: str,
        device: str,
        threads: int,
    ) -> tuple[Maps, dict[str, Any]]:
        """Return the maps and what they cost: ``seconds``, ``seconds_predict``, perhaps ``losses``.

        Args:
            cell: the training to do.
            experiment: the experiment it belongs to.
            prepared: its images.
            styled: path without suffix of the stylized training images; None for methods that have none.
            root: workspace of the experiment.
            key: SHA-256 of everything that decides the predictions.
            device: torch device, such as ``cuda:0``.
            threads: threads for computations on a CPU.
        """


def save_pictures(path: Path, pictures: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as one compressed ``.npz`` file, atomically; equal arrays give equal bytes."""

    def write(temporary: Path) -> None:
        # numpy's savez takes the names as keyword arguments, and some names collide with its own parameters.
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in pictures.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), "w") as stream:
                    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)

    atomic_write(path, write)


def load_pictures(path: Path) -> dict[str, np.ndarray]:
    """Read what :func:`save_pictures` wrote.

    Raises:
        OsasisError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise OsasisError(
            "A file of the workspace must be whole", found=f"{error!r} in {path}", remedy="Delete it and run again."
        ) from error


def holds(path: Path, names: Iterable[str], record: Mapping[str, Any]) -> bool:
    """Return whether a file is the recorded one and holds exactly the pictures ``names`` (renamed cases are new)."""
    try:
        if sha256_of_file(path) != record.get("file_sha256"):
            logger.warning("%s is not what was written; it is made anew.", path)
            return False
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()} == set(names)
    except (OSError, zipfile.BadZipFile):
        return False


def style(
    method: MethodSpec,
    prepared: Prepared,
    target: str | None,
    stylizer: Path | None,
    stylizer_digest: str | None,
    output: Path,
    device: str,
    threads: int,
) -> dict[str, Any]:
    """Stylize the training images into ``output`` (``.npz`` and, last, ``.json``) and return their record.

    Of several read-outs (``readout: combined+raw``) each restyles its share of the images, in turn.
    """
    place = target if target is not None else next(iter(prepared.references))
    reference = prepared.report["references"][place]["sha256"] if method.needs_reference else None
    settings = [method.kind, dict(method.parameters), reference, prepared.sha256(), stylizer_digest]
    if method.kind != "osasis":  # a control is cheap to fit, and its fingerprint says when the method itself changed
        settings.append(methods.make_transfer(method, prepared, place, None).fingerprint)
    key, record, file = sha256_of_json(settings), output.with_suffix(".json"), output.with_suffix(".npz")
    if (done := finished(record, key)) and holds(file, prepared.train_names, done):
        return done
    _use_threads(threads)
    began = time.perf_counter()
    transfers = [methods.make_transfer(part, prepared, place, stylizer, device=device) for part in method.parts]
    fitted = time.perf_counter()
    images, decisions = list(prepared.train), Counter[str]()
    for turn, transfer in enumerate(transfers):
        mine = slice(turn, None, len(transfers))
        images[mine], found = methods.style_all(
            transfer, prepared.train[mine], prepared.train_masks[mine], strength=method.parameters.get("strength")
        )
        decisions.update(found)
    ended = time.perf_counter()
    save_pictures(file, dict(zip(prepared.train_names, images, strict=True)))
    return _recorded(
        record,
        {
            "key": key,
            "method": method.name,
            "target": target,
            "fingerprint": "+".join(transfer.fingerprint for transfer in transfers),
            "gate": dict(decisions),
            "edges": edge_shift(prepared.train, images, prepared.train_masks),
            "sha256": sha256_of_json([sha256_of_array(image) for image in images]),
            "file_sha256": sha256_of_file(file),
            "seconds_fit": fitted - began,
            "seconds_per_image": (ended - fitted) / len(images),
        },
    )


def train_cell(
    cell: Cell,
    experiment: Experiment,
    prepared: Prepared,
    root: Path,
    styled: Path | None,
    engine: Engine,
    device: str,
    threads: int,
) -> dict[str, Any]:
    """Train one cell with ``engine``; keep its maps in ``cells/<cell>.npz``, and return the record beside them."""
    facts = None
    if styled is not None:
        facts = read_sealed_json(styled.with_suffix(".json"), what="A record of stylized images")
    key = cell.key(experiment, prepared, facts)
    record, file = root / "cells" / f"{cell.name}.json", root / "cells" / f"{cell.name}.npz"
    names = [f"{test}/{name}" for test in cell.tests for name in prepared.tests[test]]
    if (done := finished(record, key)) and holds(file, names, done):
        return done
    _use_threads(threads)
    maps, spent = engine(cell, experiment, prepared, styled=styled, root=root, key=key, device=device, threads=threads)
    save_pictures(file, maps)
    return _recorded(
        record,
        {
            "key": key,
            "cell": cell.name,
            "file_sha256": sha256_of_file(file),
            "seconds_train": spent["seconds"],
            "seconds_predict": spent["seconds_predict"],
            "peak_memory_mib": _peak_memory(device),
            "losses": spent.get("losses", []),
            "device": device,
        },
    )


def _recorded(record: Path, values: dict[str, Any]) -> dict[str, Any]:
    write_sealed_json(record, values)
    return values


def _use_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _peak_memory(device: str) -> float | None:
    """Return the peak memory of this process, which lives for one cell, in MiB: on the GPU if it computed there.

    None where it is unknown: on a GPU that only a child process used, and on Windows.
    """
    import torch

    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device) / 2**20) or None
    if sys.platform == "win32":
        return None
    import resource

    # Whichever was larger: this process, or the largest of its own children (nnU-Net's commands).
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return float(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)
