"""Use it, try it weaker, or keep the original: the decision about one image, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from scipy import ndimage

from nnunet_osasis.gate.scores import StructureScores, score_structure
from nnunet_osasis.gate.thresholds import GateThresholds
from nnunet_osasis.images.intensity import IntensityRange, to_unit

WEAKER = (0.75, 0.5, 0.25)
"""Shares of the wanted strength that are tried when the full one fails."""


class Segmenter(Protocol):
    """A frozen network that segments an image ``(C, H, W)`` or ``(C, D, H, W)`` in native units."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what determines its answers."""
        ...

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Labels ``(H, W)`` or ``(D, H, W)``."""
        ...


@dataclass(frozen=True)
class Decision:
    """What was decided about one image.

    Attributes:
        outcome: ``full`` (as wanted), ``weaker``, or ``original`` (nothing passed: the image is its source).
        strength: that was used; 0 for the original.
        wanted: strength that was asked for.
        lesions: that the scores looked at; small ones, and those the source does not show either, are not among them.
        scores: of what was used; for the original, of the wanted strength, which failed.
        failures: scores below their thresholds at the wanted strength; empty when it passed.
    """

    outcome: str
    strength: float
    wanted: float
    scores: dict[str, float]
    failures: dict[str, float]
    lesions: int = 0

    def to_json(self) -> dict[str, Any]:
        """For the audit."""
        return {
            "decision": self.outcome,
            "strength": self.strength,
            "wanted_strength": self.wanted,
            "scores": self.scores,
            "failures": self.failures,
            "lesions": self.lesions,
        }


@dataclass(frozen=True)
class Gated:
    """An image that may be used, float32 in native units, and the decision that it rests on."""

    image: np.ndarray
    decision: Decision


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Mean Dice over the positive labels that either map has; 1 when neither has any."""
    labels = np.union1d(np.unique(a), np.unique(b))
    each = [2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in labels if k > 0]
    return float(np.mean(each)) if each else 1.0


def lesions_kept(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> float | None:
    """Of the lesions of ``mask`` that ``before`` touches, the share that ``after`` touches too; None without any."""
    if before.shape != mask.shape:  # a segmenter may answer at a size of its own
        return None
    labels, _ = ndimage.label(mask > 0)
    found, now = (np.setdiff1d(np.unique(labels[answer > 0]), 0) for answer in (before, after))
    return float(np.isin(found, now).mean()) if len(found) else None


@dataclass(frozen=True)
class StructureGate:
    """Compares stylized images with their sources; safe to share between threads.

    Attributes:
        thresholds: from :func:`calibrate_gate`. intensity: how native units become [-1, 1].
        segmenter: asked about source and stylized image when there is one.
        default_strength: the stylizer's own, for callers that are not told one.
    """

    thresholds: GateThresholds
    intensity: IntensityRange
    segmenter: Segmenter | None = None
    default_strength: float = 1.0

    def identity(self) -> dict[str, Any]:
        """JSON of all that decides, for caches: another gate may decide otherwise."""
        found: dict[str, Any] = {"thresholds": self.thresholds.least, "weaker": list(WEAKER)}
        if self.segmenter is not None:
            found["segmenter"] = self.segmenter.fingerprint
        return found

    def score(
        self,
        source: np.ndarray,
        stylized: np.ndarray,
        mask: np.ndarray | None = None,
        *,
        answer: np.ndarray | None = None,
    ) -> StructureScores:
        """Scores of ``(C, H, W)`` or ``(C, D, H, W)`` in native units; ``mask`` without the channel axis.

        ``answer``: the segmenter's to the source, if it is known already.
        """
        bounds = self.intensity.bounds(source)
        found = score_structure(to_unit(source, bounds), to_unit(stylized, bounds), mask)
        if self.segmenter is None:
            return found
        before, after = self.segmenter(source) if answer is None else answer, self.segmenter(stylized)
        kept = None if mask is None else lesions_kept(before, after, mask)
        return replace(found, segmenter_dice=dice(before, after), segmenter_lesions=kept)

    def __call__(
        self,
        source: np.ndarray,
        stylize: Callable[[float], np.ndarray],
        strength: float,
        mask: np.ndarray | None = None,
    ) -> Gated:
        """Stylize ``source`` by ``stylize(strength)`` until something passes.

        Args:
            source: native units; also what comes back when nothing passes.
            mask: labels of its spatial shape; every component of a positive value is a lesion.

        Raises ``OsasisError`` for a mask or a stylized image of another size, and where ``stylize`` or the segmenter
        do.
        """
        first: StructureScores | None = None
        if strength == 0:
            return Gated(source.astype(np.float32), Decision("full", 0.0, 0.0, {}, {}))
        answer = None if self.segmenter is None else self.segmenter(source)
        for share in (1.0, *WEAKER):
            image = stylize(share * strength)
            found = self.score(source, image, mask, answer=answer)
            failed = found.failures(self.thresholds.least)
            first = first or found
            if not failed:
                outcome = "full" if share == 1 else "weaker"
                before = first.failures(self.thresholds.least)
                return Gated(
                    image, Decision(outcome, share * strength, strength, found.values(), before, found.lesions)
                )
        assert first is not None  # noqa: S101 (the loop ran)
        failures = first.failures(self.thresholds.least)
        decision = Decision("original", 0.0, strength, first.values(), failures, first.lesions)
        return Gated(source.astype(np.float32), decision)
