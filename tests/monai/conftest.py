"""Inputs of every kind that MONAI hands to a transform."""

from __future__ import annotations

import numpy as np
import torch
from monai.data import MetaTensor

KINDS = {
    "numpy": np.asarray,
    "torch": torch.as_tensor,
    "meta": lambda array: MetaTensor(torch.as_tensor(array), meta={"patient": "p1"}),
}


def scan(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Smooth positive values, float32."""
    axes = np.meshgrid(*(np.linspace(0, 3, n) for n in shape[1:]), indexing="ij")
    return np.stack([120 + 80 * np.sin(sum(axes) + seed + c) for c in range(shape[0])]).astype(np.float32)
