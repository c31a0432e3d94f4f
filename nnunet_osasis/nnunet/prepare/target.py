"""Where a dataset goes: its number, its name, nnU-Net's folders."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.records import parse_json
from nnunet_osasis.runtime.storage import atomic_write_bytes

UNFINISHED = ".osasis_unfinished"
"""Name of the file that marks a whole dataset whose splits are not yet where nnU-Net looks for them."""


@dataclass(frozen=True)
class Target:
    """The folder of a dataset, ``<raw>/Dataset501_Name``.

    Attributes:
        raw: nnU-Net's folder of raw datasets.
        preprocessed: nnU-Net's folder of preprocessed datasets, where it looks for splits; None if not known.
        number: the dataset's number, 1 to 999.
        name: the dataset's name.
    """

    raw: Path
    preprocessed: Path | None
    number: int
    name: str

    @classmethod
    def of(cls, dataset: str, name: str, raw: Path | None) -> Target:
        """Check what the command line says.

        Args:
            dataset: a number, or ``Dataset`` and a number.
            name: the dataset's name.
            raw: the folder of raw datasets; None takes the environment variable ``nnUNet_raw``.

        Raises:
            OsasisError: a number outside 1 to 999, a name nnU-Net could not use, no folder.
        """
        digits = re.fullmatch(r"(?:Dataset)?(\d{1,3})", dataset)
        if digits is None or int(digits[1]) == 0:
            raise OsasisError("-d takes a dataset number from 1 to 999", found=dataset, remedy="For example -d 501.")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            raise OsasisError(
                "-name takes letters, digits and _, a letter first", found=name, remedy="For example -name ClinicDB."
            )
        folder = raw or _from_environment("nnUNet_raw")
        if folder is None:
            raise OsasisError(
                "There must be a folder for raw datasets",
                found="no -o, and the variable nnUNet_raw is not set",
                remedy="Say -o FOLDER, or export nnUNet_raw=FOLDER as nnU-Net wants it.",
            )
        return cls(folder, _from_environment("nnUNet_preprocessed"), int(digits[1]), name)

    @property
    def folder(self) -> Path:
        """Folder of the dataset."""
        return self.raw / f"Dataset{self.number:03d}_{self.name}"

    @property
    def splits(self) -> Path | None:
        """File that nnU-Net reads splits from: beside the preprocessed data, not the raw ones."""
        return None if self.preprocessed is None else self.preprocessed / self.folder.name / "splits_final.json"

    def require_free(self, *, overwrite: bool) -> None:
        """Refuse a number that another dataset has, and without ``overwrite`` a dataset that is there."""
        for root in filter(None, (self.raw, self.preprocessed)):
            for other in sorted(root.glob(f"Dataset{self.number:03d}_*")):
                if other.name != self.folder.name:
                    raise OsasisError(
                        "A dataset's number must be its own", found=f"{other}", remedy="Take another number for -d."
                    )
        existing = [path for path in (self.folder, self.splits) if path is not None and path.exists()]
        if existing and not overwrite and not self.is_unfinished:
            raise OsasisError(
                "A dataset that is there is not overwritten",
                found=f"{existing[0]}",
                remedy="Say --overwrite to replace it, or take another number.",
            )

    @property
    def is_unfinished(self) -> bool:
        """Whether the dataset there comes from a run that was killed before its splits were in place."""
        return (self.folder / UNFINISHED).is_file()

    def write_splits(self, made: Path) -> None:
        """Put the splits where nnU-Net reads them, if its folder is known."""
        if self.splits is not None:
            atomic_write_bytes(self.splits, json.dumps(parse_json(made.read_bytes()), indent=2).encode())


def _from_environment(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None
