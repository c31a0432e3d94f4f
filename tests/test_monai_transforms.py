"""The stylizer inside MONAI: the same pixels, the same kind, cached, picklable."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, MetaTensor, PersistentDataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Randomizable, Transposed
from specimens import draw

from monai_transforms import OSASISStylize, OSASISStylizeD, OSASISStylized
from nnunet_osasis import OsasisError, OSASISStylizer


def test_same_pixels_as_the_stylizer(stylizer: OSASISStylizer, stylizer_folder: Path) -> None:
    image = draw(1).astype(np.float32)
    assert np.array_equal(OSASISStylize(stylizer_folder)(image), stylizer.stylize_array(image))
    assert np.array_equal(OSASISStylize(stylizer)(image), stylizer.stylize_array(image))


@pytest.mark.parametrize("kind", ["numpy", "torch", "meta"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_kind_dtype_and_metadata_are_kept(stylizer_folder: Path, kind: str, dtype: str) -> None:
    array = draw(1).astype(dtype)
    image = {"numpy": array, "torch": torch.from_numpy(array), "meta": MetaTensor(array, meta={"patient": "p1"})}[kind]
    found = OSASISStylize(stylizer_folder)(image)
    assert type(found) is type(image)
    assert found.dtype == image.dtype
    assert found.shape == image.shape
    if kind == "meta":
        assert found.meta["patient"] == "p1"


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_volumes_are_cut_along_the_chosen_axis(stylizer: OSASISStylizer, axis: int) -> None:
    volume = np.random.default_rng(0).uniform(20, 230, (3, 12, 10, 8)).astype(np.float32)
    found = OSASISStylize(stylizer, slice_axis=axis)(volume)
    place = axis if axis < 0 else axis + 1
    expected = stylizer.stylize_array(volume.take(2, axis=place))
    np.testing.assert_allclose(found.take(2, axis=place), expected, atol=1e-3)


def test_in_a_compose_only_the_images_change(stylizer_folder: Path, image_folder: Path) -> None:
    transform = Compose(
        [
            LoadImaged(keys=["image", "label"], reader="PILReader"),
            EnsureChannelFirstd(keys=["image", "label"]),
            Transposed(keys=["image", "label"], indices=[0, 2, 1]),
            OSASISStylized(keys="image", stylizer=stylizer_folder),
        ]
    )
    case = {"image": image_folder / "images/case 1.png", "label": image_folder / "masks/case 1.png"}
    plain = Compose(transform.transforms[:-1])(case)
    found = transform(case)
    assert torch.equal(found["label"], plain["label"])
    assert not torch.equal(found["image"], plain["image"])
    assert found["image"].meta["filename_or_obj"] == plain["image"].meta["filename_or_obj"]


def test_deterministic_and_cached(stylizer_folder: Path, tmp_path: Path) -> None:
    transform = OSASISStylized(keys="image", stylizer=stylizer_folder)
    assert not isinstance(transform, Randomizable)
    items = [{"image": draw(i).astype(np.float32)} for i in range(2)]
    cached = CacheDataset(items, Compose([transform]), progress=False)
    assert cached[0]["image"] is cached._cache[0]["image"] or np.array_equal(
        cached[0]["image"], cached._cache[0]["image"]
    )
    persistent = PersistentDataset(items, Compose([transform]), cache_dir=tmp_path)
    first = persistent[0]["image"]
    assert len(list(tmp_path.glob("*.pt"))) == 1
    assert np.array_equal(persistent[0]["image"], first)


def test_picklable_for_workers(stylizer_folder: Path) -> None:
    transform = OSASISStylizeD(keys="image", stylizer=stylizer_folder)
    image = {"image": draw(0).astype(np.float32)}
    again = pickle.loads(pickle.dumps(transform))  # noqa: S301 (our own bytes)
    assert np.array_equal(again(image)["image"], transform(image)["image"])


def test_errors_name_the_rule(stylizer_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="absent"):
        OSASISStylized(keys="absent", stylizer=stylizer_folder)({"image": draw(0)})
    with pytest.raises(OsasisError, match="3 channel"):
        OSASISStylize(stylizer_folder)(draw(0)[:1])
    with pytest.raises(OsasisError, match=r"stylizer\.json"):
        OSASISStylize(tmp_path)(draw(0))
    with pytest.raises(OsasisError, match="strength"):
        OSASISStylize(stylizer_folder, strength=2)
