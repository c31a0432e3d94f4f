"""The structure gate: no stylized image is used before it has been compared with its source."""

from nnunet_osasis.gate.calibration import GateThresholds, calibrate_gate
from nnunet_osasis.gate.gate import Decision, Gated, Segmenter, StructureGate
from nnunet_osasis.gate.scores import StructureScores, score_structure

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
