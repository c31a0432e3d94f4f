"""The structure gate: no stylized image is used before it has been compared with its source.

The names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_osasis.gate.calibration import calibrate_gate
    from nnunet_osasis.gate.gate import Decision, Gated, Segmenter, StructureGate
    from nnunet_osasis.gate.scores import StructureScores, score_structure
    from nnunet_osasis.gate.thresholds import GateThresholds

_MODULES = {
    "Decision": "gate",
    "GateThresholds": "thresholds",
    "Gated": "gate",
    "Segmenter": "gate",
    "StructureGate": "gate",
    "StructureScores": "scores",
    "calibrate_gate": "calibration",
    "score_structure": "scores",
}

__all__ = [
    "Decision",
    "GateThresholds",
    "Gated",
    "Segmenter",
    "StructureGate",
    "StructureScores",
    "calibrate_gate",
    "score_structure",
]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
