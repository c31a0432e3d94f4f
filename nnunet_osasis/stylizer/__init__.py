"""The trained stylizer: read-outs, the folder on disk, gated use, folders of images.

``OSASISStylizer``, ``StylizerConfig`` and ``StylizerState`` are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.config import StylizerConfig
    from nnunet_osasis.stylizer.serialization import StylizerState
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

_MODULES = {"OSASISStylizer": "stylizer", "StylizerConfig": "config", "StylizerState": "serialization"}

__all__ = ["OSASISStylizer", "StylizerConfig", "StylizerState"]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
