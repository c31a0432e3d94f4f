"""Any style transfer as a MONAI transform: the transfer's own pixels, kinds kept, random ones drawn afresh."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor, PersistentDataset, pickle_hashing
from monai.transforms import Compose, Randomizable
from specimens import draw

import monai_transforms
from monai_transforms import RandStyleTransform, RandStyleTransformd, StyleTransform, StyleTransformd
from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.controls import (
    CONTROLS,
    GIN,
    RANDOM,
    ColourJitter,
    Control,
    FourierDomainAdaptation,
    HistogramMatching,
    HistogramShift,
    Identity,
    PooledReinhard,
    Reinhard,
)

from .conftest import KINDS, scan

REFERENCE = draw(7)
TRANSFERS: dict[str, Control] = {
    type(control).__name__: control
    for control in (
        Identity(3),
        HistogramMatching(REFERENCE),
        PooledReinhard.fit([draw(1), draw(2)], REFERENCE),
        Reinhard(REFERENCE),
        FourierDomainAdaptation(REFERENCE, beta=0.1),
        GIN(3),
        ColourJitter(3),
        HistogramShift(3),
    )
}


@pytest.fixture(params=TRANSFERS)
def transfer(request: pytest.FixtureRequest) -> Control:
    return TRANSFERS[request.param]


def test_every_control_is_tried() -> None:
    assert {type(transfer) for transfer in TRANSFERS.values()} == set(CONTROLS)


def test_same_pixels_as_the_transfer(transfer: Control) -> None:
    image, volume = draw(3).astype(np.float32), scan((3, 20, 24, 6))
    transform = StyleTransform(transfer)
    assert np.array_equal(transform(image), transfer.stylize_array(image))
    expected = np.moveaxis(transfer.stylize_array(np.ascontiguousarray(np.moveaxis(volume, -1, 1))), 1, -1)
    assert np.array_equal(transform(volume), expected)
    assert np.array_equal(transform(image, strength=0.5), transfer.stylize_array(image, strength=0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_kind_dtype_and_metadata_stay(transfer: Control, kind: str) -> None:
    image = KINDS[kind](draw(1))
    for transform in (StyleTransform(transfer), RandStyleTransform(transfer, prob=1.0)):
        found = transform(image)
        assert type(found) is type(image) and found.dtype == image.dtype and found.shape == image.shape
        if isinstance(found, MetaTensor):
            assert found.meta["patient"] == "p1"


def test_strength_zero_and_probability_zero_are_the_identity(transfer: Control) -> None:
    image = draw(1) / 3.0
    assert np.array_equal(StyleTransform(transfer, strength=0)(image), image)
    assert RandStyleTransform(transfer, prob=0)(image) is image


def test_transforms_survive_pickle_unchanged_by_use(transfer: Control) -> None:
    image = draw(1)
    for transform in (StyleTransform(transfer), StyleTransformd("image", transfer)):
        before = pickle.dumps(transform)
        data = {"image": image} if isinstance(transform, StyleTransformd) else image
        found, again = transform(data), pickle.loads(before)(data)  # noqa: S301
        assert pickle.dumps(transform) == before
        for key in data if isinstance(data, dict) else [slice(None)]:
            assert np.array_equal(found[key], again[key])


@pytest.mark.parametrize("kind", RANDOM)
def test_random_controls_are_drawn_afresh_under_monais_seed(kind) -> None:
    image = draw(1).astype(np.float32)
    transform = RandStyleTransform(kind(3), prob=1.0).set_random_state(0)
    first, second = transform(image), transform(image)
    assert not np.array_equal(first, second)
    assert np.array_equal(transform(image, randomize=False), second)
    transform.set_random_state(0)
    assert np.array_equal(transform(image), first)
    plain = StyleTransform(kind(3))
    assert np.array_equal(plain(image), plain(image))


def test_keys_share_a_draw_and_samples_of_a_batch_do_not() -> None:
    image = draw(1).astype(np.float32)
    found = RandStyleTransformd(["a", "b"], GIN(3), prob=1.0).set_random_state(0)({"a": image, "b": image, "c": image})
    assert np.array_equal(found["a"], found["b"]) and found["c"] is image
    batch = RandStyleTransform(GIN(3), prob=1.0, batched=True).set_random_state(0)(np.stack([image] * 3))
    assert len({float(sample.mean()) for sample in batch}) == 3


def test_caches_hold_deterministic_results_and_tell_transfers_apart(tmp_path: Path) -> None:
    cases = [{"image": draw(1)}]
    cached = CacheDataset(cases, Compose([StyleTransformd("image", GIN(3))]), progress=False)
    assert np.array_equal(cached[0]["image"], GIN(3).stylize_array(draw(1)).round().astype(np.uint8))
    results = []
    for transfer in (GIN(3), GIN(3, seed=1), FourierDomainAdaptation(REFERENCE)):
        pipeline = Compose([StyleTransformd("image", transfer)])
        PersistentDataset(cases, pipeline, cache_dir=tmp_path, hash_transform=pickle_hashing)[0]
        results.append(len(list(tmp_path.glob("*.pt"))))
    assert results == [1, 2, 3]


def test_random_transforms_work_in_loader_workers() -> None:
    data = [{"image": draw(1)} for _ in range(4)]
    pipeline = Compose([RandStyleTransformd("image", GIN(3), prob=1.0)]).set_random_state(0)
    loader = DataLoader(CacheDataset(data, pipeline, progress=False), batch_size=1, num_workers=2)
    assert len({float(torch.as_tensor(batch["image"]).float().mean()) for batch in loader}) == 4


def test_a_stylizer_is_a_transfer_too(stylizer: OSASISStylizer) -> None:
    image = draw(1).astype(np.float32)
    assert np.array_equal(StyleTransform(stylizer)(image), stylizer.stylize_array(image))


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(OsasisError, match="style transfer"):
        StyleTransform("stylizer")  # type: ignore[arg-type]
    with pytest.raises(OsasisError, match="strength"):
        StyleTransform(GIN(3), strength=2)
    with pytest.raises(OsasisError, match=r"key 'image': .*3 channel"):
        StyleTransformd("image", GIN(3))({"image": draw(1)[:1]})
    with pytest.raises(OsasisError, match="prob"):
        RandStyleTransform(GIN(3), prob=1.5)


def test_names_are_monais() -> None:
    assert not issubclass(StyleTransform, Randomizable) and issubclass(RandStyleTransform, Randomizable)
    assert not issubclass(StyleTransformd, Randomizable) and issubclass(RandStyleTransformd, Randomizable)
    for base in ("StyleTransform", "RandStyleTransform"):
        assert len({getattr(monai_transforms, base + ending) for ending in ("d", "D", "Dict")}) == 1
