"""Use it, use it weaker, or keep the original: the decision about one image, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from scipy import ndimage

from nnunet_osasis.gate.parts import places_to_judge, worst_of
from nnunet_osasis.gate.scores import StructureScores, score_structure
from nnunet_osasis.gate.thresholds import GateThresholds
from nnunet_osasis.images.image import to_dtype
from nnunet_osasis.images.intensity import IntensityRange, to_unit
from nnunet_osasis.maps.field_of_view import Frame

WEAKER = (0.75, 0.5, 0.25)
"""Shares of the requested strength that are tried, in order, when the full one fails."""


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
        outcome: ``full`` (as requested), ``weaker``, or ``original`` (nothing passed: the image is its source).
        strength: the strength that was used; 0 for the original.
        wanted: the strength that was requested.
        scores: of what was used; for the original, of the requested strength, which failed.
        failures: scores below their thresholds at the requested strength; empty when it passed.
        lesions: number of lesions that were scored; small ones, and those the source does not show, are not among them.
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
class GateResult:
    """An image that may be used, and the decision that it rests on.

    Attributes:
        image: in native units, as it is stored: in its source's type, rounded and clipped.
        decision: what was decided.
    """

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
    touched_before, touched_after = (np.setdiff1d(np.unique(labels[answer > 0]), 0) for answer in (before, after))
    return float(np.isin(touched_before, touched_after).mean()) if len(touched_before) else None


def weaken(source: np.ndarray, changed: np.ndarray, share: float) -> np.ndarray:
    """Blend an image in native units with its changed version: float32, ``share`` of the change.

    At 1 it is ``changed`` itself. The other strengths of a stylizer and of the controls are such blends too, but for
    values that the full strength clips.
    """
    if share == 1:
        return changed
    start = source.astype(np.float32)
    return start + np.float32(share) * (changed.astype(np.float32) - start)


@dataclass(frozen=True)
class StructureGate:
    """Compares restyled images with their sources; safe to share between threads.

    >>> gate = StructureGate(GateThresholds({"structure_kept": 0.9}), IntensityRange())
    >>> image = np.random.default_rng(0).uniform(0, 255, (3, 32, 32)).astype(np.float32)
    >>> gate(image, 0.8 * image + 20, strength=1.0).decision.outcome
    'full'
    >>> gate(image, image[:, ::-1], strength=1.0).decision.outcome
    'original'

    Attributes:
        thresholds: from :func:`calibrate_gate`.
        intensity: how native units become [-1, 1].
        segmenter: a frozen network that is asked about source and restyled image.
        default_strength: the stylizer's own strength, for callers without one.
        frame: of the images that are restyled; it counts for nothing.
    """

    thresholds: GateThresholds
    intensity: IntensityRange
    segmenter: Segmenter | None = None
    default_strength: float = 1.0
    frame: Frame | None = None

    def identity(self) -> dict[str, Any]:
        """JSON of all that decides, for caches: another gate may decide otherwise."""
        identity: dict[str, Any] = {"thresholds": self.thresholds.least, "weaker": list(WEAKER)}
        if self.frame is not None:
            identity["frame"] = self.frame.to_json()
        if self.segmenter is not None:
            identity["segmenter"] = self.segmenter.fingerprint
        return identity

    def __call__(
        self,
        source: np.ndarray,
        changed: np.ndarray,
        strength: float,
        mask: np.ndarray | None = None,
        stored: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> GateResult:
        """Use ``changed``, or weaken it until it passes. What is judged is what is stored, and that is returned.

        Args:
            source: ``(C, H, W)`` or ``(C, D, H, W)``, native units; also the result when nothing passes.
            changed: ``source`` restyled at ``strength``, native units.
            strength: the strength that ``changed`` was made with, in [0, 1].
            mask: labels of the spatial shape of ``source``; every component of a positive value is a lesion.
            stored: turns an image in native units into what is stored of it; None casts to the type of ``source``,
                which rounds and clips whole numbers.

        Raises:
            OsasisError: a mask or a restyled image of another size, or what the segmenter raises.
        """
        if strength == 0:
            return GateResult(source.copy(), Decision("full", 0.0, 0.0, {}, {}))
        bounds = self.intensity.bounds(source)
        places = places_to_judge(source, changed, mask)
        answer = None if self.segmenter is None else self.segmenter(source)
        least = self.thresholds.least
        first: StructureScores | None = None
        for share in (1.0, *WEAKER):
            image = _stored(source, changed, share, stored)
            parts = []
            for place in places:
                labels = None if mask is None else mask[place[1:]]
                units = to_unit(source[place], bounds), to_unit(image[place], bounds)
                parts.append(score_structure(*units, labels, self.frame))
            scores = worst_of(parts)
            if self.segmenter is not None and answer is not None:
                scores = _with_segmenter(scores, answer, self.segmenter(image), mask)
            first = first or scores
            if not scores.failures(least):
                outcome, failures = ("full", {}) if share == 1 else ("weaker", first.failures(least))
                decision = Decision(outcome, share * strength, strength, scores.values(), failures, scores.lesions)
                return GateResult(image, decision)
        assert first is not None  # noqa: S101 (the loop ran)
        decision = Decision("original", 0.0, strength, first.values(), first.failures(least), first.lesions)
        return GateResult(source.copy(), decision)


def _stored(
    source: np.ndarray, changed: np.ndarray, share: float, stored: Callable[[np.ndarray], np.ndarray] | None
) -> np.ndarray:
    """What is stored of ``changed`` at ``share``; by default plane by plane, as a whole image in float32 is large."""
    if stored is not None:
        return stored(weaken(source, changed, share))
    if share == 1 and changed.dtype == source.dtype:
        return changed
    result = np.empty_like(source)
    for plane in np.ndindex(source.shape[:-2]):
        result[plane] = to_dtype(weaken(source[plane], changed[plane], share), source.dtype)
    return result


def _with_segmenter(
    scores: StructureScores, before: np.ndarray, after: np.ndarray, mask: np.ndarray | None
) -> StructureScores:
    kept = None if mask is None else lesions_kept(before, after, mask)
    return replace(scores, segmenter_dice=dice(before, after), segmenter_lesions=kept)
