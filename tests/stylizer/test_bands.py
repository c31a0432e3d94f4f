"""Large images: the same pixels however they are cut, and memory that does not grow with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_osasis.images import bands
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.maps.base import MeanMap, PixelMap
from nnunet_osasis.maps.local_affine import apply_local_affine
from nnunet_osasis.maps.moments import MomentMap
from nnunet_osasis.maps.parametric import TERMS, ParametricMap, feature_count
from nnunet_osasis.stylizer.config import StylizerConfig
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

SHAPES = [(3, 131, 257), (3, 7, 40, 53), (1, 33, 200), (1, 9, 31, 17)]


def maps_of(channels: int) -> dict[str, PixelMap]:
    rng = np.random.default_rng(channels)
    bent = rng.normal(0, 0.05, (channels, feature_count(channels, TERMS))).tolist()
    placed = ParametricMap(bent, TERMS, [-1.0] * channels, [1.0] * channels)
    moments = MomentMap(
        [40.0, 5, 3][:channels], [20.0, 9, 8][:channels], [55.0, -5, 9][:channels], [15.0, 12, 5][:channels]
    )
    return {"decoder_bent": placed, "moments": moments, "combined": MeanMap([placed, moments], 0.9)}


def stylizer_of(channels: int, kind: str = "fixed") -> OSASISStylizer:
    intensity = IntensityRange() if kind == "fixed" else IntensityRange(kind, 0.5, 99.5)
    return OSASISStylizer(
        reference=np.zeros((channels, 8, 8), np.uint8),
        maps=maps_of(channels),
        config=StylizerConfig(intensity=intensity),
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["fixed", "percentile", "channel_percentile"])
@pytest.mark.parametrize("readout", ["decoder_bent", "moments", "combined"])
def test_maps_give_the_same_bits_however_an_image_is_cut(
    shape: tuple[int, ...], kind: str, readout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(1).uniform(0, 255, shape).astype(np.uint8)
    stylizer = stylizer_of(shape[0], kind)
    results = []
    for most in (2**20, 5000, 701, 1):
        monkeypatch.setattr(bands, "BAND_VALUES", most)
        results.append(stylizer.stylize_array(image, readout=readout, strength=0.7))
    assert all(np.array_equal(result, results[0]) for result in results[1:])
    assert np.abs(results[0] - image).max() > 1
    monkeypatch.setattr(bands, "BAND_VALUES", 701)
    stored = stylizer.stylize_array(image, readout=readout, strength=0.7, dtype=np.uint8)
    assert np.array_equal(stored, np.clip(np.rint(results[0]), 0, 255).astype(np.uint8))


def test_tensors_give_the_same_bits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(3, 3, 37, 45) * 2 - 1
    whole = stylizer_of(3).stylize(images)
    monkeypatch.setattr(bands, "BAND_VALUES", 997)
    assert torch.equal(stylizer_of(3).stylize(images), whole)


def test_the_networks_change_is_carried_alike_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    images, slope, offset = torch.rand(2, 3, 90, 70), torch.rand(2, 3, 3, 16, 16), torch.rand(2, 3, 16, 16)
    whole = apply_local_affine(slope, offset, images)
    monkeypatch.setattr(bands, "BAND_VALUES", 1000)
    assert torch.allclose(apply_local_affine(slope, offset, images), whole, atol=1e-6)


MEASURE = """
import sys
import numpy as np
from PIL import Image
from test_bands import stylizer_of
from nnunet_osasis.gate import GateThresholds
from nnunet_osasis.stylizer.archive.run import stylize_folder
from pathlib import Path
source, output = map(Path, sys.argv[1:])
stylizer = stylizer_of(3)
stylizer.gate = GateThresholds({"structure_kept": 0.01})
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()  # resource counts the process that started this one
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
small = source / "small"
stylize_folder(stylizer, small, output / "small", progress=False)
before = peak()
stylize_folder(stylizer, source, output / "large", progress=False)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_picture_takes_six_times_its_bytes_and_half_a_gigabyte(tmp_path: Path) -> None:
    from PIL import Image

    side = 3000
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    picture = np.stack([120 + 60 * np.sin(x / 40 + i) + 40 * np.cos(y / 30 - i) for i in range(3)], axis=-1)
    (tmp_path / "in/small").mkdir(parents=True)
    Image.fromarray(picture.astype(np.uint8)).save(tmp_path / "in/a.png", compress_level=1)
    Image.fromarray(picture[:64, :64].astype(np.uint8)).save(tmp_path / "in/small/a.png")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "in"), str(tmp_path / "out")]
    ran = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    bound = 6 * picture.size + 2**29
    assert int(ran.stdout.split()[-1]) < bound  # 1.5 GB when all was held in float32
