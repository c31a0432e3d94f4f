"""Values that cannot be a stylizer's are refused, doubtful ones warned about, and whatever is merely dark passes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from specimens import draw

from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.images.units import UnitsError, UnitsWarning, add_seen, check_units

BYTES, UNIT = IntensityRange("fixed", 0, 255), IntensityRange("fixed", 0, 1)
WINDOW = IntensityRange("fixed", -160, 240, seen=(-1024, -990, 900, 3071))
WIDE = IntensityRange("fixed", 0, 65535, seen=(0, 300, 30000, 65535))

scene = draw(3).astype(np.float32)


def ct() -> np.ndarray:
    """A scan in Hounsfield units: air, fat, tissue and bone."""
    rng = np.random.default_rng(0)
    body = rng.normal(40, 60, (1, 6, 40, 40))
    body[..., 30:] = 700
    body[..., :15] = -1000
    return np.rint(body).astype(np.int16)


def z_score(array: np.ndarray) -> np.ndarray:
    return (array - array.mean()) / array.std()


WRONG = {
    "[0, 1] for bytes": (scene / 255, BYTES),
    "stretched to [0, 1] for bytes": ((scene - scene.min()) / (scene.max() - scene.min()), BYTES),
    "[0, 1] in half precision": ((scene / 255).astype(np.float16), BYTES),
    "[0, 1], mostly background": (np.where(scene > 150, scene / 255, 0), BYTES),
    "[-1, 1] for bytes": (scene / 127.5 - 1, BYTES),
    "z-scores for bytes": (z_score(scene), BYTES),
    "16 bits for bytes": (scene * 257, BYTES),
    "12 bits for bytes": ((scene * 16).astype(np.uint16), BYTES),
    "a little more than 8 bits": ((scene * 1.8).astype(np.uint16), BYTES),
    "HU for bytes": (ct(), BYTES),
    "MR for bytes": (scene * 5.3, BYTES),
    "bytes for [0, 1]": (scene, UNIT),
    "z-scores for [0, 1]": (z_score(scene), UNIT),
    "[-1, 1] for [0, 1]": (scene / 127.5 - 1, UNIT),
    "bytes for HU": (scene[:1].astype(np.uint8), WINDOW),
    "a window in [0, 1] for HU": (np.clip((ct() + 160) / 400, 0, 1), WINDOW),
    "a window in 0 to 255 for HU": (np.clip((ct() + 160) / 400, 0, 1) * 255, WINDOW),
    "z-scores for HU": (z_score(ct().astype(np.float32)), WINDOW),
    "16 bits for HU": (scene * 257, WINDOW),
    "[0, 1] for a window of unknown images": (scene / 255, IntensityRange("fixed", -160, 240)),
    "bytes for 16 bits": (scene.astype(np.uint8), WIDE),
    "[0, 1] for 16 bits": (scene / 255, WIDE),
    "truth values": (scene > 100, BYTES),
}

RIGHT = {
    "an image": (scene, BYTES),
    "a dim image": (scene / 30 // 1, BYTES),
    "a dim image, resampled": (scene / 30, BYTES),
    "a dim image of bytes": ((scene > 150).astype(np.uint8), BYTES),
    "black": (np.zeros((3, 8, 8)), BYTES),
    "nearly black": (np.pad(np.full((3, 1, 1), 0.4), ((0, 0), (0, 30), (0, 30))), BYTES),
    "white": (np.full((3, 8, 8), 255, np.uint8), BYTES),
    "constant": (np.full((3, 8, 8), 0.3), BYTES),
    "mostly background": (np.where(scene > 200, scene, 0), BYTES),
    "a little noise beyond": (scene + np.random.default_rng(0).normal(0, 1, scene.shape), BYTES),
    "a [0, 1] image": (scene / 255, UNIT),
    "a dim [0, 1] image": (scene / 2550, UNIT),
    "black in [0, 1]": (np.zeros((3, 8, 8)), UNIT),
    "HU": (ct(), WINDOW),
    "HU, resampled": (ct() + 0.25, WINDOW),
    "mostly air": (np.where(ct() > 600, 700, -1000), WINDOW),
    "air alone": (np.full((1, 6, 8, 8), -1000), WINDOW),
    "metal": (np.where(np.arange(9600).reshape(1, 6, 40, 40) < 50, 30000, ct()), WINDOW),
    "HU, padded by the scanner": (np.pad(ct(), ((0, 0), (0, 0), (6, 6), (0, 0)), constant_values=-3024), WINDOW),
    "bytes, resampled and rounded beyond": (np.where(scene > 150, 260, scene).astype(np.int16), BYTES),
    "HU, nothing known": (ct(), IntensityRange("fixed", -160, 240)),
    "black in 16 bits": (np.zeros((1, 8, 8), np.uint16), WIDE),
    "dim in 16 bits": ((scene * 20).astype(np.uint16), WIDE),
    "any scale for percentiles": (z_score(scene), IntensityRange("percentile", 0.5, 99.5)),
}


@pytest.mark.parametrize("case", WRONG)
def test_values_of_other_units_are_refused_with_both_ranges(case: str) -> None:
    array, intensity = WRONG[case]
    with pytest.raises(UnitsError) as refused:
        check_units(np.asarray(array), intensity)
    if case != "truth values":
        assert f"{intensity.low:g} to {intensity.high:g}" in str(refused.value)
        assert f"from {float(np.min(array)):.4g} to {float(np.max(array)):.4g}" in str(refused.value)


@pytest.mark.parametrize("case", RIGHT)
def test_right_units_pass_however_dark_they_are(case: str) -> None:
    array, intensity = RIGHT[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_units(np.asarray(array), intensity)


def test_a_matter_of_degree_is_a_warning() -> None:
    with pytest.warns(UnitsWarning, match="range 0 to 255.*got values from"):
        check_units(scene * 1.6 - 1 / 3, BYTES)
    with pytest.warns(UnitsWarning, match="none below 0, unlike every training image"):
        check_units(np.abs(ct()[..., 15:30]) + 1, WINDOW)


def test_the_sources_say_what_values_there_are() -> None:
    intensity = add_seen(WINDOW, [(-2000, -2000, 50, 50), (-3, -3, 70, 70)])
    assert intensity.seen == (-2000, -3, 50, 3071)
    assert IntensityRange(**intensity.to_json()).seen == intensity.seen
