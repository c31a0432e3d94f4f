"""Fixtures the core's tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from specimens import build_tiny, draw, second_camera

from nnunet_osasis.stylizer.stylizer import OSASISStylizer


@pytest.fixture(scope="session")
def stylizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished stylizer folder for 8-bit colour images."""
    folder = tmp_path_factory.mktemp("stylizer") / "rgb"
    build_tiny(folder)
    return folder


@pytest.fixture
def stylizer(stylizer_folder: Path) -> OSASISStylizer:
    """A stylizer loaded from that folder."""
    return OSASISStylizer.from_pretrained(stylizer_folder)


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six PNG scenes in ``images``, their ``masks``, and a reference ``style.png`` beside them."""
    root = tmp_path_factory.mktemp("data")
    for part in ("images", "masks"):
        (root / part).mkdir()
    for i in range(6):
        picture = draw(i, size=40)
        Image.fromarray(np.moveaxis(picture, 0, -1)).save(root / "images" / f"case {i}.png")
        Image.fromarray(((picture[0] > 150) * 255).astype(np.uint8)).save(root / "masks" / f"case {i}.png")
    Image.fromarray(np.moveaxis(second_camera(draw(99, size=40)), 0, -1)).save(root / "style.png")
    return root
