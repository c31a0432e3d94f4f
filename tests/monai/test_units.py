"""Images scaled before the transform: refused with both ranges, or brought to the stylizer's units and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose, ScaleIntensityd, ScaleIntensityRanged
from specimens import draw

from monai_transforms import OSASISStylize, OSASISStylized, RandOSASISStylize, RandOSASISStylized
from nnunet_osasis import OsasisError, OSASISStylizer

REMEDIES = r"0 to 255.*got values from 0 to 1.*before those that scale.*value_range=\(0, 1\)"

image = draw(5).astype(np.float32)


@pytest.mark.parametrize("transform", [OSASISStylized, RandOSASISStylized])
def test_scaling_first_is_refused_with_both_remedies(stylizer_folder: Path, transform: type) -> None:
    pipeline = Compose([ScaleIntensityd("image"), transform("image", stylizer_folder)])
    with pytest.raises((OsasisError, RuntimeError)) as refused:
        pipeline({"image": image})
    cause = refused.value if isinstance(refused.value, OsasisError) else refused.value.__cause__
    with pytest.raises(OsasisError, match=f"key 'image': .*{REMEDIES}"):
        raise cause


@pytest.mark.parametrize("batched", [False, True])
def test_a_random_transform_refuses_also_where_it_draws_nothing(stylizer_folder: Path, batched: bool) -> None:
    transform = RandOSASISStylize(stylizer_folder, prob=1e-9, batched=batched)
    scaled = image / 255
    with pytest.raises(OsasisError, match="0 to 255"):
        transform(np.stack([image, scaled]) if batched else scaled)
    assert transform(np.stack([image, image]) if batched else image) is not None


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 65535)])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_value_range_brings_values_to_the_stylizers_units_and_back(
    stylizer_folder: Path, low: float, high: float, kind: type
) -> None:
    scaled = (image / 255 * (high - low) + low).astype(np.float32)
    expected = OSASISStylize(stylizer_folder)(image) / 255 * (high - low) + low
    found = OSASISStylize(stylizer_folder, value_range=(low, high))(kind(scaled))
    assert type(found) is type(kind(scaled))
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-5 * (high - low))
    assert np.abs(np.asarray(found) - scaled).max() > 0.01 * (high - low)


def test_value_range_follows_a_scaling_of_fixed_range(stylizer_folder: Path) -> None:
    scale = ScaleIntensityRanged("image", a_min=0, a_max=255, b_min=0, b_max=1)
    after = Compose([scale, OSASISStylized("image", stylizer_folder, value_range=(0, 1))])
    before = Compose([OSASISStylized("image", stylizer_folder), scale])
    np.testing.assert_allclose(after({"image": image})["image"], before({"image": image})["image"], atol=1e-5)
    rand = RandOSASISStylized("image", stylizer_folder, prob=1, strength=1.0, value_range=(0, 1))
    np.testing.assert_allclose(Compose([scale, rand])({"image": image})["image"], after({"image": image})["image"])


def test_what_stays_as_it_is_stays_bit_for_bit(stylizer_folder: Path) -> None:
    scaled = (image / 255).astype(np.float32)
    assert np.array_equal(OSASISStylize(stylizer_folder, strength=0.0, value_range=(0, 1))(scaled), scaled)
    transform = RandOSASISStylize(stylizer_folder, prob=0.5, batched=True, value_range=(0, 1)).set_random_state(3)
    batch = np.stack([scaled] * 8)
    found = transform(batch)
    kept = [strength == 0 for strength in transform.strengths]
    assert 0 < sum(kept) < 8
    assert np.array_equal(found[kept], batch[kept])


def test_values_outside_value_range_are_refused(stylizer_folder: Path) -> None:
    with pytest.raises(OsasisError, match=r"in value_range= \(range 0 to 1\).*values from"):
        OSASISStylize(stylizer_folder, value_range=(0, 1))(image)
    for wrong in ((0,), 1, (1, 0), (0, np.nan), "01"):
        with pytest.raises(OsasisError):
            OSASISStylize(stylizer_folder, value_range=wrong)


def test_values_beyond_a_window_keep_their_excess_in_value_range(stylizer: OSASISStylizer) -> None:
    """A window of CT scaled without clip=True has air far below 0: it is no fault of the units."""
    window = replace(stylizer.config.intensity, kind="fixed", low=-160.0, high=240.0, seen=(-1024, -990, 900, 3071))
    windowed = stylizer.configured(intensity=window)
    scan = (image.astype(np.float32) - 100) * 3
    scan[:, :8] = -1000
    scaled = (scan + 160) / 400
    expected = OSASISStylize(windowed, gate=False)(scan)
    found = OSASISStylize(windowed, gate=False, value_range=(0, 1))(scaled)
    np.testing.assert_allclose(found * 400 - 160, expected, atol=0.01)


def test_the_way_back_does_not_ask_for_the_sources_values(stylizer: OSASISStylizer) -> None:
    window = replace(stylizer.config.intensity, kind="fixed", low=-160.0, high=240.0, seen=(-200, -170, 200, 260))
    windowed = stylizer.configured(intensity=window)
    scan = np.where(image > 180, 900, image.astype(np.float32) - 100)
    with pytest.raises(OsasisError, match="another bit depth or modality"):
        windowed.stylize_array(scan)
    windowed.stylize_array(scan, direction="target_to_source")


def test_without_an_amount_a_sample_takes_the_stylizers_own(stylizer: OSASISStylizer) -> None:
    weak = stylizer.configured(strength=0.5)
    batch = np.stack([image, image])
    found = OSASISStylize(weak, batched=True)(batch, strength=[None, 1.0])
    assert np.array_equal(found[0], OSASISStylize(weak)(image))
    assert np.array_equal(found[1], OSASISStylize(weak, strength=1.0)(image))


def test_tensors_for_the_network_are_in_its_own_units(stylizer: OSASISStylizer) -> None:
    with pytest.raises(OsasisError, match=r"range -1 to 1.*stylize_array"):
        stylizer.stylize(torch.from_numpy(image)[None])
