"""The stylizer of a transform: loaded once per process, and never on CUDA after a fork."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import context
from pathlib import Path
from threading import Lock

import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.compute import resolve_device
from nnunet_osasis.stylizer.serialization import stylizer_digest
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

_LOADED: dict[tuple[str, str, str, str | None], OSASISStylizer] = {}
"""Stylizers of this process by folder, digest, device and read-out (None: their own)."""

_LOADING = Lock()
"""Held while a stylizer is loaded, so that threads load each one once."""


def _new_lock() -> None:
    """A process forked while another thread loads would inherit a lock that nobody opens."""
    global _LOADING
    _LOADING = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def _load(folder: str, digest: str, device: str, readout: str | None) -> OSASISStylizer:
    own, key = (folder, digest, device, None), (folder, digest, device, readout)
    with _LOADING:
        if own not in _LOADED:
            stylizer = OSASISStylizer.from_pretrained(folder, device=device)
            if stylizer_digest(folder) != digest:
                raise OsasisError(
                    "A stylizer folder must not change while transforms use it",
                    found=f"another stylizer in {folder} than when the transform was made",
                    remedy="Make the transform anew, or keep stylizers in folders of their own.",
                )
            _LOADED[own] = stylizer
        if key not in _LOADED:
            _LOADED[key] = _LOADED[own].configured(readout=readout)
        return _LOADED[key]


class StylizerHandle:
    """A stylizer by folder or by object, small to pickle if by folder.

    Its pickle holds the digest of the folder's content: with ``hash_transform=pickle_hashing`` a MONAI cache made
    with another stylizer is another cache.

    Args:
        stylizer: a folder made by ``osasis-pretrain-stylizer``, or an ``OSASISStylizer`` (which stays on its device).
        device: for a folder: ``cpu``, ``cuda``, ``cuda:1``, ``mps`` or ``auto``; None is ``cpu``.
        readout: overrides the stylizer's own.

    Raises:
        OsasisError: no stylizer there, or a device for an object.
    """

    def __init__(
        self, stylizer: str | Path | OSASISStylizer, device: str | None = None, readout: str | None = None
    ) -> None:
        self.stylizer = None
        self.readout = readout
        if isinstance(stylizer, OSASISStylizer):
            # configured now, so that a pickle has the networks that this read-out needs
            self.stylizer = stylizer if readout is None else stylizer.configured(readout=readout)
            if device is not None:
                raise OsasisError(
                    "device= goes with a stylizer folder",
                    found=f"{device} for an OSASISStylizer",
                    remedy="Use its .to().",
                )
            self.folder, self.digest, self.device = "", self.stylizer.fingerprint, ""
        else:
            if not isinstance(stylizer, str | Path) or "\0" in str(stylizer):
                raise OsasisError(
                    "A stylizer is a folder or an OSASISStylizer",
                    found=f"{stylizer!r:.60}",
                    remedy="Give the folder that osasis-pretrain-stylizer made.",
                )
            self.folder = os.path.realpath(stylizer)
            if device is not None and not isinstance(device, str):
                raise OsasisError("device must be a text", found=f"{device!r:.60}", remedy='Such as "cpu".')
            self.digest, self.device = stylizer_digest(self.folder), device or "cpu"

    def get(self) -> OSASISStylizer:
        """The stylizer; a folder is read on first use, once per process, also when threads ask at the same time.

        Raises ``OsasisError`` for a damaged or changed folder, a device that is not there, or CUDA in a forked process.
        """
        device = str(self.stylizer.device) if self.stylizer is not None else self.device
        forked = isinstance(multiprocessing.current_process(), context.ForkProcess)
        if forked and (device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())):
            raise OsasisError(
                "CUDA cannot be used in a forked worker",
                found=f"a stylizer on {device} in a DataLoader worker",
                remedy='Use device="cpu", num_workers=0 or multiprocessing_context="spawn", or CacheDataset.',
            )
        if self.stylizer is not None:
            return self.stylizer
        return _load(self.folder, self.digest, resolve_device(self.device), self.readout)
