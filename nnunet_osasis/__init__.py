"""nnunet-osasis: one-shot style transfer against domain shift, for nnU-Net, MONAI and the command line.

Importing this package is cheap; the names below are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
    from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
    from nnunet_osasis.errors import OsasisError
    from nnunet_osasis.stylizer.config import StylizerConfig
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

_WHERE = {
    "DiffusionAutoencoder": "diffusion.autoencoder",
    "OSASISStylizer": "stylizer.stylizer",
    "OsasisError": "errors",
    "StructurePreservingNetwork": "diffusion.spn",
    "StylizerConfig": "stylizer.config",
}

__all__ = ["DiffusionAutoencoder", "OSASISStylizer", "OsasisError", "StructurePreservingNetwork", "StylizerConfig"]


def __getattr__(name: str) -> object:
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
