"""No command writes into a folder that it reads: results could replace inputs, or be taken for inputs later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunet_osasis import OsasisError
from nnunet_osasis.scripts import demo, evaluate, pretrain_stylizer, report


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with ``images``, ``masks`` and two links to them."""
    for part in ("images", "masks"):
        (tmp_path / "site" / part).mkdir(parents=True)
        for i in range(14):
            sides = (8, 8, 3) if part == "images" else (8, 8)
            Image.fromarray(np.full(sides, i + 1, np.uint8)).save(tmp_path / "site" / part / f"{i}.png")
        (tmp_path / "site" / f"link_to_{part}").symlink_to(tmp_path / "site" / part)
    return tmp_path / "site"


@pytest.mark.parametrize("place", ["images", "images/deeper/out", "link_to_images", "link_to_masks/out", "masks"])
@pytest.mark.parametrize("command", [demo, evaluate, pretrain_stylizer, report], ids=lambda each: each.__name__[23:])
def test_output_among_the_inputs_is_refused_before_anything_is_written(command, place: str, site: Path) -> None:
    images, masks, output = str(site / "images"), str(site / "masks"), str(site / place)
    if command is pretrain_stylizer:
        if "masks" in place:
            return  # it reads none
        arguments = ["--images", images, "--style", f"{images}/0.png", "--output", output]
    elif command is evaluate:
        arguments = ["-p", masks, "-r", masks, "--images", images, "-o", output]
    else:
        arguments = ["--source", str(site), "--target", str(site), "--output", output]
    before = sorted(site.rglob("*"))
    with pytest.raises(OsasisError, match="another folder than the inputs, and lie in none"):
        command.main(arguments)
    assert sorted(site.rglob("*")) == before
