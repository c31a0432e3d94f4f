"""Whether an exported model answers as the trained one does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

_SEED = 0


@dataclass(frozen=True)
class Comparison:
    """What two models made of the same random patches.

    Attributes:
        inputs: shapes of the batches.
        largest_logit: the largest absolute logit, the scale of the difference.
        max_abs_difference: between any two logits.
        same_labels: share of voxels, in [0, 1], with the same highest channel.
    """

    inputs: list[tuple[int, ...]]
    largest_logit: float
    max_abs_difference: float
    same_labels: float

    @property
    def identical(self) -> bool:
        """Every logit equals its counterpart."""
        return self.max_abs_difference == 0.0

    def within(self, tolerance: float) -> bool:
        """No difference beyond ``tolerance``, as a share of the largest logit where that is above 1."""
        return self.max_abs_difference <= tolerance * max(1.0, self.largest_logit)

    def as_json(self) -> dict[str, Any]:
        """For the record."""
        return {
            "inputs": [list(shape) for shape in self.inputs],
            "input_values": f"standard normal, seed {_SEED}",
            "largest_logit": self.largest_logit,
            "max_abs_difference": self.max_abs_difference,
            "identical": self.identical,
            "same_labels": self.same_labels,
        }


def compare(
    trained: Callable[[torch.Tensor], torch.Tensor],
    exported: Callable[[torch.Tensor], torch.Tensor],
    shape: tuple[int, ...],
    *,
    batches: tuple[int, ...] = (1,),
) -> Comparison:
    """Run both on random patches ``(batch, *shape)``, standard normal as normalized images about are.

    NaN in either answer makes the difference infinite.
    """
    generator = torch.Generator().manual_seed(_SEED)
    largest, difference, same, voxels = 0.0, 0.0, 0, 0
    for batch in batches:
        patch = torch.randn((batch, *shape), generator=generator)
        with torch.inference_mode():
            ours, theirs = trained(patch), exported(patch)
        apart = (ours - theirs).abs().nan_to_num(nan=float("inf"))
        largest, difference = max(largest, float(ours.abs().max())), max(difference, float(apart.max()))
        same += int((ours.argmax(1) == theirs.argmax(1)).sum())
        voxels += ours[:, 0].numel()
    return Comparison([(batch, *shape) for batch in batches], largest, difference, same / voxels)
