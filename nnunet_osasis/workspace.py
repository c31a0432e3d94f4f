"""What the long commands' output folders share: a claim on the folder, and what made the results in it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.storage import atomic_write_json

PACKAGES = ("nnunet-osasis", "nnunetv2", "torch", "monai", "diffusers", "numpy", "scikit-image")


def claim(root: Path, command: str) -> None:
    """Make the output folder ``command``'s: steps that run again replace whole subfolders of it.

    Raises ``OsasisError`` for a folder that holds anything but an earlier output of the same command.
    """
    marker = root / f"{command.replace('-', '_')}.json"
    if root.exists() and not marker.is_file() and (not root.is_dir() or any(root.iterdir())):
        raise OsasisError(
            f"The output folder must be new, empty, or an earlier one of {command}",
            found=f"other content in {root}",
            remedy="Choose another --output.",
        )
    atomic_write_json(marker, {"made_by": command})


def machine() -> dict[str, Any]:
    """System, interpreter, cores and package versions; nothing that names the machine."""

    def installed(package: str) -> str:
        try:
            return version(package)
        except PackageNotFoundError:  # run from a source tree
            return "not installed"

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        **{package: installed(package) for package in PACKAGES},
    }
