"""Read-outs: small parametric colour maps fitted to what the diffusion model says, applied at any size.

At small scale the decoder's raw picture is not what should be trained on: it repaints texture. The *change of
colour* it (or the style pair) implies, pooled over many images, is robust and moves no edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.readout_names import READOUTS

__all__ = ["READOUTS", "ColorMap", "pixels_in_view"]


@dataclass(frozen=True)
class ColorMap:
    """An affine map of channel values: ``y_o = sum_i matrix[o][i] x_i + offset[o]``, in [-1, 1]."""

    matrix: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]

    @classmethod
    def fit(cls, before: torch.Tensor, after: torch.Tensor, *, ridge: float = 1e-3, rounds: int = 3) -> ColorMap:
        """Ridge regression of ``after`` on ``before``, pulled to the identity, with outliers down-weighted.

        Args:
            before, after: pixels ``(N, C)`` in [-1, 1].
            ridge: weight of ``|A - I|^2`` against the mean squared error.
            rounds: reweighted passes (Huber weights at 1.345 robust standard deviations); 1 is plain least squares.

        Raises ``OsasisError`` when there are fewer pixels than the map has parameters.
        """
        count, channels = before.shape
        if count <= channels + 1:
            raise OsasisError("A colour map needs pixels to be fitted on", found=f"{count} pixels in view")
        x = torch.cat([before, torch.ones(count, 1)], dim=1).double()
        delta = (after - before).double()
        penalty = ridge * torch.eye(channels + 1, dtype=torch.float64)
        penalty[-1, -1] = 1e-8
        weight = torch.ones(count, 1, dtype=torch.float64)
        for _ in range(rounds):
            xw = x * weight
            solution = torch.linalg.solve(xw.T @ x / weight.sum() + penalty, xw.T @ delta / weight.sum())
            residual = (delta - x @ solution).norm(dim=1, keepdim=True)
            scale = 1.4826 * residual.median().clamp(min=1e-6)
            weight = (1.345 * scale / residual.clamp(min=1e-12)).clamp(max=1)
        matrix = solution[:-1].T + torch.eye(channels, dtype=torch.float64)
        return cls(tuple(tuple(row) for row in matrix.tolist()), tuple(solution[-1].tolist()))

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


def pixels_in_view(images: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
    """Pixels ``(N, C)`` of ``(B, C, H, W)`` where ``view`` ``(B, 1, H, W)`` holds."""
    return images.permute(0, 2, 3, 1)[view[:, 0]].cpu()
