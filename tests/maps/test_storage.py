"""A picture that is stored mirrored or transposed gives the same pixels, mirrored or transposed, to the bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from specimens import unit_images

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.maps.parametric import ParametricMap, feature_count
from nnunet_osasis.stylizer.names import READOUTS, is_map

STORED: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mirrored": lambda images: images.flip(-1),
    "upside down": lambda images: images.flip(-2),
    "turned": lambda images: images.rot90(1, (-2, -1)),
    "transposed": lambda images: images.mT,
}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("direction", ["source_to_target", "target_to_source"])
@pytest.mark.parametrize("readout", [name for name in READOUTS if is_map(name)])
def test_every_map_is_equivariant(stylizer: OSASISStylizer, readout: str, direction: str, stored: str) -> None:
    if stylizer.configured(readout=readout).sees_axes():
        pytest.skip("a slope belongs to the scanner's axes, which the doors restore")
    images = torch.nn.functional.interpolate(unit_images(2), (33, 46), mode="bilinear")
    turn = STORED[stored]
    expected = turn(stylizer.stylize(images, readout=readout, direction=direction))
    assert torch.equal(stylizer.stylize(turn(images).contiguous(), readout=readout, direction=direction), expected)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("terms", [("radial",), ("quadratic", "tone", "radial")])
@pytest.mark.parametrize("size", [(1, 1), (7, 64), (57, 57), (130, 31)])
def test_a_vignette_is_equal_on_all_sides(size: tuple[int, int], terms: tuple[str, ...], stored: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = (torch.rand(2, feature_count(2, terms), generator=generator) * 0.4).tolist()
    change = ParametricMap(rows, terms, [-1.0, -0.9], [0.9, 1.0])
    images, turn = torch.rand(2, 2, *size, generator=generator) * 2 - 1, STORED[stored]
    assert torch.equal(change(turn(images).contiguous()), turn(change(images)))
