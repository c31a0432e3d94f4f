"""Pictures for people: whatever an image is called."""

from __future__ import annotations

from pathlib import Path

import torch

from nnunet_osasis.images.grids import save_grid


def test_dollars_in_names_are_no_formulas(tmp_path: Path) -> None:
    path = save_grid(tmp_path / "grid.png", [("case $_{2$", [torch.zeros(3, 8, 8)])], title="a $b^$ c")
    assert path.stat().st_size > 1000
