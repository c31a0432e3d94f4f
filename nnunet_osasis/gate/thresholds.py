"""The thresholds of the structure gate: plain numbers, which a stylizer's folder holds and every load reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nnunet_osasis.errors import OsasisError

CALIBRATED = (
    "boundaries", "structure_kept", "structure_not_invented", "mutual_information", "lesion_contrast", "lesion_edges"
)  # fmt: skip
"""Scores whose thresholds are measured on source images; the higher, the better."""

FLOORS = {
    "boundaries": 0.7,
    "directions": 0.0,
    "fine_structure": 0.3,
    "structure_kept": 0.4,
    "structure_not_invented": 0.3,
    "mutual_information": 0.1,
    "lesion_contrast": 0.9,
    "lesion_edges": 0.5,
    "segmenter_dice": 0.975,
    "segmenter_lesions": 1.0,
}
"""The least of every score. No stylizer's folder, which may come from anywhere, can lower or leave out one of them."""

MOST = {
    "boundaries": 0.9,
    "structure_kept": 0.65,
    "structure_not_invented": 0.35,
    "lesion_contrast": 0.9,
    "lesion_edges": 0.87,
}
"""The most that a calibration asks for: real cameras differ in resolution by more than random ones do."""

FORMER = {"kept": "structure_kept", "own": "structure_not_invented"}
"""Names that scores have in older files, and their names now."""


def renamed(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Scores by their names of now."""
    return {FORMER.get(name, name): value for name, value in scores.items()}


@dataclass(frozen=True)
class GateThresholds:
    """The least scores that an image needs to be used.

    >>> GateThresholds({"boundaries": 0.8}).serves(needs_round_trip=True)
    False

    Attributes:
        scores: least values by name; what is lower than in ``FLOORS``, or missing, is as there.
        round_trip: whether round trips of the networks counted as undamaged, as read-outs that run them need.
        segmenter_dice: least Dice between a frozen segmenter's answers to source and stylized image, if one is given;
            0.975 is an IoU of 0.95, and the floor. No lesion that it finds may be lost, whatever this value is.
        views: number of undamaged views they were measured on.
        false_alarms: share of these views that fail.
        detection: share of damaged views that fail, by kind of damage, without and (``with_mask``) with the mask.
    """

    scores: dict[str, float]
    round_trip: bool = False
    segmenter_dice: float = 0.975
    views: int = 0
    false_alarms: float = 0.0
    detection: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", renamed(self.scores))
        if unknown := sorted(set(self.scores) - set(FLOORS)):
            raise OsasisError(
                "A gate's thresholds must be of known scores", found=unknown, remedy=f"Use {', '.join(FLOORS)}."
            )
        for name, value in {**self.scores, "segmenter_dice": self.segmenter_dice}.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= 1:
                raise OsasisError(f"A gate's threshold ({name}) must lie in [-1, 1]", found=value, remedy="Make anew.")

    @property
    def least(self) -> dict[str, float]:
        """All thresholds by name, none below its floor."""
        own = {**self.scores, "segmenter_dice": self.segmenter_dice}
        return {name: max(floor, own.get(name, floor)) for name, floor in FLOORS.items()}

    def serves(self, *, needs_round_trip: bool) -> bool:
        """Whether they fit a read-out; one that runs the networks needs their round trip among the undamaged views."""
        return self.round_trip or not needs_round_trip

    def to_json(self) -> dict[str, Any]:
        """For the stylizer's index; ``GateThresholds(**value)`` reads it."""
        return asdict(self)
