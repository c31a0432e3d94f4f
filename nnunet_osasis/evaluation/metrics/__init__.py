"""Segmentation metrics: one case, a folder, tables and charts. Definitions are in ``docs/evaluation.md``.

Importing this needs numpy and scipy only; MONAI is imported by the surface distances, matplotlib by the charts, and
readers of files where they read.
"""

from nnunet_osasis.evaluation.metrics.folder import FolderScores, Score, score_folder
from nnunet_osasis.evaluation.metrics.protocol import (
    METRICS,
    PAPER,
    PROTOCOLS,
    PYSODMETRICS,
    STANDARD,
    Definition,
    Protocol,
    choose_protocol,
)
from nnunet_osasis.evaluation.metrics.score import score_case, score_labels
from nnunet_osasis.evaluation.metrics.summary import summarise, summarize

__all__ = [
    "METRICS",
    "PAPER",
    "PROTOCOLS",
    "PYSODMETRICS",
    "STANDARD",
    "Definition",
    "FolderScores",
    "Protocol",
    "Score",
    "choose_protocol",
    "score_case",
    "score_folder",
    "score_labels",
    "summarise",
    "summarize",
]
