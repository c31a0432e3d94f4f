"""What worker processes do: style the training images for a method, or train a cell and predict its test images."""

from __future__ import annotations

import logging
import sys
import time
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment import methods
from nnunet_osasis.evaluation.experiment.cells import Cell
from nnunet_osasis.evaluation.experiment.config import Experiment, MethodSpec
from nnunet_osasis.evaluation.experiment.data import Prepared
from nnunet_osasis.runtime.records import finished, read_sealed_json, write_sealed_json
from nnunet_osasis.runtime.storage import atomic_write, sha256_of_array, sha256_of_file, sha256_of_json

logger = logging.getLogger(__name__)


def save_pictures(path: Path, pictures: dict[str, np.ndarray]) -> None:
    """Arrays by name as one compressed file, atomically; same arrays, same bytes."""

    def write(temporary: Path) -> None:
        # numpy's own savez takes the names as keyword arguments, and some names are its own.
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in pictures.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), "w") as stream:
                    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)

    atomic_write(path, write)


def load_pictures(path: Path) -> dict[str, np.ndarray]:
    """Read what :func:`save_pictures` wrote. Raises ``OsasisError`` when the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise OsasisError(
            "A file of the workspace must be whole", found=f"{error!r} in {path}", remedy="Delete it and run again."
        ) from error


def holds(path: Path, names: Iterable[str], record: Mapping[str, Any]) -> bool:
    """Whether a file of pictures is the recorded one and has just these names (renamed cases are new).

    Records of earlier versions know no hash of the file: every entry's own checksum is compared instead.
    """
    try:
        if "file_sha256" in record and sha256_of_file(path) != record["file_sha256"]:
            logger.warning("%s is not what was written; it is made anew.", path)
            return False
        with zipfile.ZipFile(path) as archive:
            same = {name.removesuffix(".npy") for name in archive.namelist()} == set(names)
            return same and ("file_sha256" in record or archive.testzip() is None)
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError):
        return False


def is_whole_checkpoint(path: Path) -> bool:
    """Whether nnU-Net's checkpoint is there and every part fits its checksum: nnU-Net writes it in place, not whole."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def style(
    method: MethodSpec,
    prepared: Prepared,
    target: str | None,
    stylizer: Path | None,
    stylizer_digest: str | None,
    output: Path,
    threads: int,
) -> dict[str, Any]:
    """Styled copies of the training images in ``output`` (``.npz`` and, last, ``.json``); done once."""
    place = target if target is not None else next(iter(prepared.references))
    reference = prepared.report["references"][place]["sha256"] if method.needs_reference else None
    settings = [method.kind, dict(method.parameters), reference, prepared.sha256(), stylizer_digest]
    if method.kind != "osasis":  # cheap to make, and its fingerprint tells when the method itself has changed
        settings.append(methods.make_transfer(method, prepared, place, None).fingerprint)
    else:
        settings.append("gated")  # copies that were made before the gate was there are made anew
    key, record, file = sha256_of_json(settings), output.with_suffix(".json"), output.with_suffix(".npz")
    if (done := finished(record, key)) and holds(file, prepared.train_names, done):
        return done
    _use_threads(threads)
    began = time.perf_counter()
    transfer = methods.make_transfer(method, prepared, place, stylizer)
    fitted = time.perf_counter()
    images, decisions = methods.style_all(
        transfer, prepared.train, prepared.train_masks, strength=method.parameters.get("strength")
    )
    ended = time.perf_counter()
    save_pictures(file, dict(zip(prepared.train_names, images, strict=True)))
    return _recorded(
        record,
        {
            "key": key,
            "method": method.name,
            "target": target,
            "fingerprint": transfer.fingerprint,
            "gate": decisions,
            "sha256": sha256_of_json([sha256_of_array(image) for image in images]),
            "file_sha256": sha256_of_file(file),
            "seconds_fit": fitted - began,
            "seconds_per_image": (ended - fitted) / len(images),
        },
    )


def train_cell(
    cell: Cell, experiment: Experiment, prepared: Prepared, folder: Path, styled: Path | None, device: str, threads: int
) -> dict[str, Any]:
    """Train one cell, and keep probabilities (``test/case``, uint8) in ``<cell>.npz``, the rest in ``<cell>.json``."""
    facts = None
    if styled is not None:
        facts = read_sealed_json(styled.with_suffix(".json"), what="A record of styled images")
    key = cell.key(experiment, prepared, facts)
    record, file = folder / f"{cell.name}.json", folder / f"{cell.name}.npz"
    wanted = [f"{test}/{name}" for test in cell.tests for name in prepared.tests[test]]
    if (done := finished(record, key)) and holds(file, wanted, done):
        return done
    _use_threads(threads)
    if experiment.budget.engine == "nnunet":
        from nnunet_osasis.evaluation.experiment import nnunet as nnunet_engine

        root = folder.parent / "nnunet"
        maps, spent = nnunet_engine.train_and_predict(
            cell, experiment, prepared, root, key=key, device=device, threads=threads
        )
    else:
        maps, spent = _by_light_engine(cell, experiment, prepared, styled, device)
    save_pictures(file, maps)
    return _recorded(
        record,
        {
            "key": key,
            "cell": cell.name,
            "file_sha256": sha256_of_file(file),
            "seconds_train": spent["seconds"],
            "seconds_predict": spent["seconds_predict"],
            "peak_memory_mib": _peak_memory(device, experiment.budget.engine),
            "losses": spent.get("losses", []),
            "device": device,
        },
    )


def _by_light_engine(
    cell: Cell, experiment: Experiment, prepared: Prepared, styled: Path | None, device: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Maps by ``test/case`` and what they cost."""
    from nnunet_osasis.evaluation.experiment import light

    copies = None
    if styled is not None:
        stored = load_pictures(styled.with_suffix(".npz"))
        copies = [stored[name] for name in prepared.train_names]
    data = methods.training_set(cell.method, prepared, cell.target, copies)
    network, spent = light.train(cell.network, data, experiment.budget, seed=cell.random_seed, device=device)
    began = time.perf_counter()
    maps = {
        f"{test}/{name}": picture
        for test in cell.tests
        for name, picture in light.predict(network, prepared.tests[test], experiment.budget, device=device).items()
    }
    return maps, {**spent, "seconds_predict": time.perf_counter() - began}


def _recorded(record: Path, values: dict[str, Any]) -> dict[str, Any]:
    write_sealed_json(record, values)
    return values


def _use_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _peak_memory(device: str, engine: str) -> float | None:
    """Peak memory in MiB: of the device where there is one, else of this process, which lives for one cell.

    None where it cannot be known: on a GPU that a child process used, and on Windows.
    """
    import torch

    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device) / 2**20) if engine == "light" else None
    if sys.platform == "win32":
        return None
    import resource

    # Whichever was larger: this process, or the largest of its own children (the nnU-Net engine's commands).
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return float(peak / 2**20 if sys.platform == "darwin" else peak / 2**10)
