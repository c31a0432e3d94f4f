"""The structure scores of one stylized image against its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.fine import fine_structure
from nnunet_osasis.gate.lesions import lesion_scores
from nnunet_osasis.gate.local import noise_variance, smooth, unexplained
from nnunet_osasis.gate.structure import direction_agreement, structure_agreement
from nnunet_osasis.gate.thresholds import FLOORS
from nnunet_osasis.maps.field_of_view import Frame, field_of_view


@dataclass(frozen=True)
class StructureScores:
    """Scores of one restyled image: higher is better, 1 is perfect.

    Attributes:
        boundaries: correlation of gradient magnitudes over the whole picture.
        structure_kept: share of the source's local structure that is still there, in the worst window.
        structure_not_invented: share of the stylized image's local structure that is the source's, in the worst window.
        mutual_information: normalized, 0 to 1; one-channel images only.
        lesion_contrast: of the worst lesion; None without a mask that has a visible lesion.
        lesion_edges: of the worst lesion; None without a mask that has a visible lesion.
        directions: share of edges that run the same way, dark to bright, less those that run the other way.
        fine_structure: 1 without patterns of a few pixels that the source has not.
        lesions: number of lesions that were scored.
        segmenter_dice: Dice of a frozen segmenter's answers to source and restyled image, if there is one.
        segmenter_lesions: share of the lesions it finds in the source that it finds in the stylized image as well.
    """

    boundaries: float
    structure_kept: float
    structure_not_invented: float
    mutual_information: float | None = None
    lesion_contrast: float | None = None
    lesion_edges: float | None = None
    directions: float = 1.0
    fine_structure: float = 1.0
    lesions: int = 0
    segmenter_dice: float | None = None
    segmenter_lesions: float | None = None

    def values(self) -> dict[str, float]:
        """The scores there are, by name, rounded as the audit has them."""
        scores = {name: getattr(self, name) for name in FLOORS}
        return {name: round(float(value), 4) for name, value in scores.items() if value is not None}

    def failures(self, thresholds: Mapping[str, float]) -> dict[str, float]:
        """The scores below their thresholds."""
        return {name: value for name, value in self.values().items() if not value >= thresholds.get(name, -np.inf)}


def score_structure(
    source: np.ndarray, stylized: np.ndarray, mask: np.ndarray | None = None, frame: Frame | None = None
) -> StructureScores:
    """Score a stylized image.

    Args:
        source: ``(C, H, W)``, or ``(C, D, H, W)`` with slices along ``D``, in [-1, 1].
        stylized: the restyled image, likewise.
        mask: labels ``(H, W)`` or ``(D, H, W)``; every component of every positive value is a lesion.
        frame: of the set that the image belongs to; it counts for nothing.

    Raises:
        OsasisError: shapes differ.
    """
    if source.shape != stylized.shape or (mask is not None and mask.shape != source.shape[1:]):
        raise OsasisError(
            "A stylized image and a mask must have their source's size",
            found=f"{stylized.shape[1:]} and {None if mask is None else mask.shape} for {source.shape[1:]}",
            remedy="Resample them.",
        )
    with torch.autocast("cpu", enabled=False):  # whatever the caller computes in
        return _scores(np.asarray(source, np.float32), np.asarray(stylized, np.float32), mask, frame)


def _scores(source: np.ndarray, stylized: np.ndarray, mask: np.ndarray | None, frame: Frame | None) -> StructureScores:
    before, after = (np.moveaxis(image, 1, 0) if image.ndim == 4 else image[None] for image in (source, stylized))
    quiet = smooth(before), smooth(after)
    lost, invented = unexplained(*quiet, noise_variance(after))
    view = field_of_view(torch.from_numpy(np.ascontiguousarray(before)), frame, joint=len(before) > 1)
    shared = None
    if len(source) == 1:
        from skimage.metrics import (
            normalized_mutual_information,  # brings scipy.stats, seconds that color can do without
        )

        inside = np.moveaxis(view.numpy(), 1, 0).reshape(-1)
        values = [image.reshape(-1)[inside] for image in (source, stylized)]
        varied = all(len(v) > 1 and v.min() < v.max() for v in values)
        shared = float(normalized_mutual_information(*values, bins=64)) - 1 if varied else 1.0
    labels = None if mask is None else mask if mask.ndim == 3 else mask[None]
    lesions = None if labels is None else lesion_scores(quiet[0].numpy(), quiet[1].numpy(), labels)
    return StructureScores(
        boundaries=_boundaries(quiet, view),
        directions=_directions(quiet),
        fine_structure=fine_structure(before, after),
        structure_kept=1 - float(lost.max()),
        structure_not_invented=1 - float(invented.max()),
        mutual_information=shared,
        lesion_contrast=lesions[0] if lesions else None,
        lesion_edges=lesions[1] if lesions else None,
        lesions=lesions[2] if lesions else 0,
    )


def _directions(quiet: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Agreement of the edges' directions over all slices together; 1 where an image has no edges."""
    if min(quiet[0].shape[-2:]) < 3 or any(float(image.var(correction=0)) < 1e-8 for image in quiet):
        return 1.0
    return float(direction_agreement(_stacked(quiet[0]), _stacked(quiet[1])))


def _boundaries(quiet: tuple[torch.Tensor, torch.Tensor], view: torch.Tensor) -> float:
    """Correlation of gradient magnitudes over all slices together; 1 where neither image has any."""
    if min(quiet[0].shape[-2:]) < 5:
        return 1.0  # smaller than the frame that is left out
    if all(float(image.var(correction=0)) < 1e-8 for image in quiet):
        return 1.0
    return float(structure_agreement(_stacked(quiet[0]), _stacked(quiet[1]), _stacked(view.float())))


def _stacked(slices: torch.Tensor) -> torch.Tensor:
    """``(B, C, H, W)`` as one tall picture ``(1, C, B * H, W)``."""
    return slices.movedim(0, 1).flatten(1, 2)[None]
