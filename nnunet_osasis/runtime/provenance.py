"""What the long commands' output folders share: a claim on the folder, and what made the results in it."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import metadata
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("nnunet-osasis", "nnunetv2", "torch", "monai", "diffusers", "numpy", "scikit-image")


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


@cache
def versions() -> dict[str, str]:
    """Of this package and those that compute its results."""
    return {name: metadata.version(name) for name in ("nnunet-osasis", "torch", "numpy", "scipy", "scikit-image")}
