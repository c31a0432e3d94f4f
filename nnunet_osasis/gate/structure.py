"""Agreement of edges over a whole picture."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def gradients(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient of the mean over channels along columns and rows, by central differences: ``(B, H - 2, W - 2)`` each."""
    gray = images.mean(dim=1)
    return gray[:, 1:-1, 2:] - gray[:, 1:-1, :-2], gray[:, 2:, 1:-1] - gray[:, :-2, 1:-1]


def gradient_magnitude(images: torch.Tensor) -> torch.Tensor:
    """Magnitude of the gradient: ``(B, H - 2, W - 2)``."""
    across, down = gradients(images)
    return (across.square() + down.square()).sqrt()


def direction_agreement(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Whether edges of two batches run the same way, dark to bright: ``(B,)``, 1 for all of them, -1 for none.

    It is the cosine between the gradients of ``a`` and ``b`` ``(B, C, H, W)``; 0 where one is flat.
    """
    x, y = (torch.stack(gradients(v), dim=1).flatten(1) for v in (a, b))
    return (x * y).sum(dim=1) / (x.norm(dim=1) * y.norm(dim=1)).clamp(min=1e-8)


def structure_agreement(a: torch.Tensor, b: torch.Tensor, view: torch.Tensor | None = None) -> torch.Tensor:
    """Correlation of the gradient magnitudes of two batches: ``(B,)``; 0 where one is flat.

    Args:
        a: ``(B, C, H, W)``.
        b: ``(B, C, H, W)``.
        view: ``(B or 1, 1, H, W)``; only pixels at least two away from its edge count, because a frame that both share
            would make any two scenes alike.
    """
    x, y = (gradient_magnitude(v).flatten(1) for v in (a, b))
    if view is None:
        keep = torch.ones_like(x)
    else:
        outside = F.max_pool2d(1 - view.to(a), 5, stride=1, padding=2)
        keep = (1 - outside)[:, 0, 1:-1, 1:-1].flatten(1).expand_as(x)
    count = keep.sum(dim=1, keepdim=True).clamp(min=1)
    x, y = (keep * (v - (keep * v).sum(dim=1, keepdim=True) / count) for v in (x, y))
    return (x * y).sum(dim=1) / (x.norm(dim=1) * y.norm(dim=1)).clamp(min=1e-8)
