"""Read-outs: small parametric colour maps fitted to what the diffusion model says, applied at any size.

At small scale the decoder's raw picture is not what should be trained on: it repaints texture. The *change of
colour* it (or the style pair) implies, pooled over many images, is robust and moves no edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from nnunet_osasis.readout_names import READOUTS

__all__ = ["READOUTS", "ColorMap"]


@dataclass(frozen=True)
class ColorMap:
    """An affine map of channel values: ``y_o = sum_i matrix[o][i] x_i + offset[o]``, in [-1, 1].

    The form of stylizer folders of format 1; new maps are fitted as ``parametric_map.ParametricMap``.
    """

    matrix: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]

    @classmethod
    def mean(cls, maps: list[ColorMap]) -> ColorMap:
        """The average map (affine maps form a vector space)."""
        matrix = torch.tensor([m.matrix for m in maps], dtype=torch.float64).mean(0)
        offset = torch.tensor([m.offset for m in maps], dtype=torch.float64).mean(0)
        return cls(tuple(tuple(row) for row in matrix.tolist()), tuple(offset.tolist()))

    def to_json(self) -> dict[str, Any]:
        """JSON form; ``from_json`` reads it."""
        return {"matrix": self.matrix, "offset": self.offset}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ColorMap:
        """Back from ``to_json``. Raises ``KeyError`` or ``TypeError`` for anything else."""
        return cls(tuple(tuple(row) for row in values["matrix"]), tuple(values["offset"]))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Apply to ``(B, C, H, W)``; not clipped."""
        matrix = torch.tensor(self.matrix, dtype=torch.float64).to(images)
        offset = torch.tensor(self.offset, dtype=torch.float64).to(images)
        return torch.einsum("oi,bihw->bohw", matrix, images) + offset[None, :, None, None]
