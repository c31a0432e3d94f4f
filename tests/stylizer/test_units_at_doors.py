"""Every door that takes images in native units refuses those of other units, and stylizers remember their sources'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from specimens import SIZE, draw

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.maps.parametric import ParametricMap
from nnunet_osasis.nnunet.on_the_fly.transfer import OnePassTransfer
from nnunet_osasis.stylizer.archive.run import stylize_folder
from nnunet_osasis.stylizer.config import StylizerConfig
from nnunet_osasis.training.sources import load_reference, load_sources

BOTH_RANGES = "0 to 255.*got values from"

wrong = {"scaled": draw(1).astype(np.float32) / 255, "16 bit": draw(1).astype(np.uint16) * 257}


@pytest.mark.parametrize("case", wrong)
def test_arrays_of_other_units_are_refused(stylizer: OSASISStylizer, case: str) -> None:
    for stylize in (stylizer.stylize_array, OnePassTransfer(stylizer.configured(readout="moments")).stylize_array):
        with pytest.raises(OsasisError, match=BOTH_RANGES):
            stylize(wrong[case])
    with pytest.raises(OsasisError, match=BOTH_RANGES):
        stylizer.stylize_arrays([draw(1), wrong[case]], [1, 1])
    with pytest.raises(OsasisError, match=BOTH_RANGES):
        load_reference(wrong[case], 3, IntensityRange(), name="the reference")


def test_the_folder_command_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(draw(0, channels=1)[0]).save(tmp_path / "in" / "a.png")
    Image.fromarray(draw(0, channels=1)[0].astype(np.uint16) * 257).save(tmp_path / "in" / "deep.png")
    gray = OSASISStylizer(
        reference=np.zeros((1, 8, 8)), maps={"moments": ParametricMap.affine([[0.9]], [0.05])},
        config=StylizerConfig(readout="moments"),
    )  # fmt: skip
    with pytest.raises(OsasisError, match=f"deep.png.*{BOTH_RANGES}"):
        stylize_folder(gray, tmp_path / "in", tmp_path / "out", gated=False, progress=False)


def test_a_stylizer_remembers_the_values_of_its_sources(stylizer: OSASISStylizer, tmp_path: Path) -> None:
    images = [("a", draw(1)), ("b", draw(2) // 2)]
    _, intensity = load_sources(lambda: images, SIZE)
    lows, highs = sorted(int(image.min()) for _, image in images), sorted(int(image.max()) for _, image in images)
    assert intensity.seen == (*lows, *highs)
    stylizer.configured(intensity=intensity).save_pretrained(tmp_path / "copy")
    assert OSASISStylizer.from_pretrained(tmp_path / "copy").config.intensity.seen == intensity.seen


@pytest.mark.parametrize("seen", [[1, 2, 3], [2, 1, 3, 4], [0, 0, 1, float("inf")], "abcd", [0, 0, 0, None]])
def test_remembered_values_are_checked(seen: object) -> None:
    with pytest.raises((OsasisError, TypeError, ValueError)):
        IntensityRange("fixed", 0, 255, seen=seen)  # type: ignore[arg-type]
