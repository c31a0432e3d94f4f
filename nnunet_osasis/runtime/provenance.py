"""Which system, interpreter and package versions made a result."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from typing import Any

COMPUTING = ("nnunet-osasis", "torch", "numpy", "scipy", "scikit-image")
"""Packages that decide the pixels and scores of a result; every line of an audit names their versions."""

PACKAGES = (*COMPUTING, "nnunetv2", "monai", "diffusers", "open_clip_torch", "batchgenerators", "SimpleITK")
"""Packages whose versions reports and ``osasis-info`` name."""


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a source tree
        return "not installed"


def versions(packages: Iterable[str] = COMPUTING) -> dict[str, str]:
    """Installed versions by package."""
    return {package: _version(package) for package in packages}


def machine() -> dict[str, Any]:
    """System, interpreter, cores and package versions; nothing that names the machine."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        **versions(PACKAGES),
    }
