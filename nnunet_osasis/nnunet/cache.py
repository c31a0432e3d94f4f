"""Stylized copies of a fold's training cases, made once, before training starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import blosc2
import numpy as np
from filelock import FileLock
from nnunetv2.training.dataloading.nnunet_dataset import (
    comp_blosc2_params,
    infer_dataset_class,
    nnUNetDatasetBlosc2,
)
from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.cases import open_cases
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.manifest import CaseRecord, FileState, append_event
from nnunet_osasis.nnunet.restyle import restyle_with
from nnunet_osasis.storage import atomic_write_json, sha256_of_json
from nnunet_osasis.transfer import StyleTransfer

FORMAT = 1
_ROOM_TO_SPARE = 1.5  # stylized images compress a little worse than their sources


class StylizedCache:
    """The folder of stylized images that belongs to one transfer, one strength and one way of preprocessing.

    ``<data_identifier>_osasis_<key>/`` holds one ``<case>.b2nd`` per stylized case, the image alone: segmentation
    and properties are those of the original. Records, log and lock lie in ``..._records/`` beside it, because
    nnU-Net tells a folder's format by its file endings. Folds share the folder; each fills in its own cases.
    """

    def __init__(self, setup: NnunetConfiguration, transfer: StyleTransfer, strength: float | None) -> None:
        channels = len(setup.manager.normalization_schemes)
        if transfer.in_channels != channels:
            raise OsasisError(
                f"The stylizer must take the {channels} channel(s) of {setup.dataset}",
                found=f"one for {transfer.in_channels} channel(s)",
                remedy="Make a stylizer from this dataset's images.",
            )
        self._setup, self._transfer, self._strength = setup, transfer, strength
        self._cases = open_cases(setup)
        self._identity = {
            "format": FORMAT,
            "transfer": transfer.fingerprint,
            "strength": strength,
            "route": self._cases.route,
            "preprocessing": _preprocessing(setup),
        }
        name = f"{setup.manager.data_identifier}_osasis_{sha256_of_json(self._identity)[:12]}"
        self.folder = setup.preprocessed_folder / name
        self.records = setup.preprocessed_folder / f"{name}_records"

    def image_path(self, key: str) -> Path:
        """Where the stylized image of a case is."""
        return self.folder / f"{key}.b2nd"

    def build(self, keys: Sequence[str]) -> list[str]:
        """Stylize the cases in ``keys`` that are not there, whole and up to date; return those it made.

        Several processes may call this at once (the ranks of a DDP run, several folds): one works, the others
        wait for its lock, which ends with its process. Raises ``OsasisError`` when the disk is full, when
        preprocessed data do not belong to the raw images, and when a transfer misbehaves; finished cases are kept.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.records / "cases").mkdir(parents=True, exist_ok=True)
            with FileLock(self.records / "lock"):
                return self._build(sorted(keys))
        except OSError as error:
            raise self._cannot_write(error) from error

    def _build(self, keys: list[str]) -> list[str]:
        shutil.rmtree(self._workbench, ignore_errors=True)  # left by a process that was killed
        missing = [key for key in keys if not self._is_whole(key)]
        log = self.records / "log.jsonl"
        append_event(log, "build", requested=len(keys), reused=len(keys) - len(missing), **self._identity_brief())
        if not missing:
            return []
        self._require_room(missing)
        self._cases.require_same_as_preprocessed(missing[0])
        atomic_write_json(self.records / "cache.json", self._identity)
        for key in tqdm(missing, desc=f"Stylizing training cases ({len(keys) - len(missing)} there)", unit="case"):
            start = perf_counter()
            record = self._make(key)
            append_event(
                log,
                "stylized",
                case=key,
                sources={name: state.sha256 for name, state in record.sources.items()},
                result=record.result.sha256,
                seconds=round(perf_counter() - start, 3),
            )
        return missing

    def _is_whole(self, key: str) -> bool:
        record = CaseRecord.read(self._record_path(key))
        return record is not None and record.still_holds(self._cases.source_files(key), self.image_path(key))

    def _make(self, key: str) -> CaseRecord:
        sources = {path.name: FileState.of(path) for path in self._cases.source_files(key)}
        image = self._cases.preprocessed(key, restyle_with(self._transfer, self._strength))
        record = CaseRecord(sources, self._save(key, image))
        record.write(self._record_path(key))
        return record

    def _save(self, key: str, image: np.ndarray) -> FileState:
        """Write ``image`` ``(C, Z, Y, X)`` through nnU-Net on the workbench, check it, move it into place."""
        blocks, chunks = self._layout(key, image)
        unused = np.zeros((1, 1, 1, 1), np.int8)  # save_case also wants a segmentation; it stays on the workbench
        written = self._workbench / f"{key}.b2nd"
        self._workbench.mkdir(exist_ok=True)
        try:
            nnUNetDatasetBlosc2.save_case(
                image,
                unused,
                {},
                str(self._workbench / key),
                chunks=chunks,
                blocks=blocks,
                chunks_seg=unused.shape,
                blocks_seg=unused.shape,
            )
            if not np.array_equal(blosc2.open(urlpath=str(written), mode="r")[:], image):
                raise OSError(f"{written} reads back differently")
            with open(written, "rb+") as stream:
                os.fsync(stream.fileno())
            state = FileState.of(written)
            os.replace(written, self.image_path(key))
        except RuntimeError as error:  # blosc2's way to say that it could not write
            raise self._cannot_write(error) from error
        finally:
            shutil.rmtree(self._workbench, ignore_errors=True)
        return state

    def _layout(self, key: str, image: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Blocks and chunks of the original file, so that reading a patch costs the same."""
        folder = str(self._setup.preprocessed_folder / self._setup.manager.data_identifier)
        original = infer_dataset_class(folder)(folder, [key]).load_case(key)[0]
        if tuple(original.shape) != image.shape:
            raise OsasisError(
                f"A stylized case must have its original's shape {tuple(original.shape)}",
                found=f"{image.shape} for {key}",
                remedy=f"The raw image changed: run nnUNetv2_preprocess -d {int(self._setup.dataset[7:10])} again.",
            )
        if hasattr(original, "chunks") and hasattr(original, "blocks"):
            return tuple(original.blocks), tuple(original.chunks)
        return comp_blosc2_params(image.shape, tuple(self._setup.manager.patch_size), image.itemsize)

    def _require_room(self, missing: list[str]) -> None:
        originals = self._setup.preprocessed_folder / self._setup.manager.data_identifier
        sizes = [(originals / f"{key}.b2nd").stat().st_size for key in missing if (originals / f"{key}.b2nd").is_file()]
        needed, free = int(sum(sizes) * _ROOM_TO_SPARE), shutil.disk_usage(self.folder).free
        if needed > free:
            raise OsasisError(
                f"Stylizing {len(missing)} cases needs about {needed / 1e6:,.1f} MB on the disk of nnUNet_preprocessed",
                found=f"{free / 1e6:,.1f} MB free at {self.folder}",
                remedy="Free some space and start again; what was finished before is kept.",
            )

    def _cannot_write(self, error: Exception) -> OsasisError:
        return OsasisError(
            "The cache of stylized cases must be writable",
            found=f"{error} at {self.folder}",
            remedy="Free some disk space or change the folder's permissions and start again; finished cases are kept.",
        )

    def _identity_brief(self) -> dict[str, object]:
        return {key: self._identity[key] for key in ("transfer", "strength", "route")}

    def _record_path(self, key: str) -> Path:
        return self.records / "cases" / f"{key}.json"

    @property
    def _workbench(self) -> Path:
        return self.records / "unfinished"


def _preprocessing(setup: NnunetConfiguration) -> dict[str, object]:
    """Everything in the plans that decides what a preprocessed image looks like."""
    settings = ("normalization_schemes", "use_mask_for_norm", "spacing", "preprocessor_name")
    resampling = ("resampling_fn_data", "resampling_fn_data_kwargs")
    return {
        **{name: setup.manager.configuration.get(name) for name in (*settings, *resampling)},
        "transpose_forward": list(setup.plans.transpose_forward),
        "reader": setup.plans.plans["image_reader_writer"],
        "intensities": setup.plans.foreground_intensity_properties_per_channel,
    }
