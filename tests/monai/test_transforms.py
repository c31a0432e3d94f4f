"""The transforms themselves: the same pixels as everywhere, the same kind out as in, one draw, clear errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirst,
    LoadImage,
    Randomizable,
    RandomizableTransform,
    Transform,
)
from PIL import Image
from specimens import SIZE, build_tiny, draw

import monai_transforms
from monai_transforms import OSASISStylize, OSASISStylized, RandOSASISStylize, RandOSASISStylized
from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.images.io import read_image

from .conftest import KINDS, scan

SHAPES = [(3, SIZE, SIZE), (3, 45, 61), (3, 24, 20, 5), (3, 1, 33, 20), (3, 40, 30, 1)]


@pytest.mark.parametrize("readout", ["pair", "local_affine"])
def test_same_pixels_as_the_stylizer_bit_for_bit(stylizer_folder: Path, readout: str) -> None:
    stylizer = OSASISStylizer.from_pretrained(stylizer_folder)
    image, volume = scan((3, 20, 33)), scan((3, 20, 24, 6))
    expected = stylizer.stylize_array(np.moveaxis(volume, -1, 1), readout=readout)
    for source in (stylizer_folder, str(stylizer_folder), stylizer):
        transform = OSASISStylize(source, readout=readout)
        assert np.array_equal(transform(image), stylizer.stylize_array(image, readout=readout))
        assert np.array_equal(transform(volume), np.moveaxis(expected, 1, -1))


@pytest.fixture(scope="module")
def grey_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grey") / "s"
    build_tiny(folder, channels=1)
    return folder


@pytest.mark.parametrize("name", ["picture.png", "scan.nii.gz"])
def test_files_read_by_monai_come_out_as_osasis_stylize_writes_them(
    stylizer_folder: Path, grey_folder: Path, tmp_path: Path, name: str
) -> None:
    """MONAI's readers return (X, Y, Z); the networks must still see a picture the way up it was trained on."""
    path = tmp_path / name
    if name.endswith("png"):
        folder, reader = stylizer_folder, "PILReader"
        Image.fromarray(np.moveaxis(draw(3, size=45)[:, :30], 0, -1)).save(path)
    else:
        folder, reader = grey_folder, "NibabelReader"
        image = sitk.GetImageFromArray(scan((1, 6, 30, 45))[0])
        image.SetSpacing((1.0, 1.0, 4.0))
        sitk.WriteImage(image, path)
    stylizer = OSASISStylizer.from_pretrained(folder).configured(readout="local_affine")
    expected = stylizer.stylize_array(read_image(path).array)
    found = Compose([LoadImage(reader=reader), EnsureChannelFirst(), OSASISStylize(stylizer)])(path)
    back = np.asarray(found).transpose(0, *range(found.ndim - 1, 0, -1))
    np.testing.assert_allclose(back, expected, atol=1e-3)
    xyz, hwd = (np.asarray(OSASISStylize(stylizer, axes=axes)(found)) for axes in ("xyz", "hwd"))
    assert np.abs(xyz - hwd).max() > 0.1


def test_an_image_and_its_single_slice_volume_agree(stylizer_folder: Path) -> None:
    image = scan((3, 20, 33))
    for axes in ("xyz", "hwd"):
        transform = OSASISStylize(stylizer_folder, readout="local_affine", axes=axes)
        np.testing.assert_array_equal(transform(image[..., None])[..., 0], transform(image))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_kinds(stylizer_folder: Path, shape: tuple[int, ...], kind: str) -> None:
    image = KINDS[kind](scan(shape))
    for transform in (OSASISStylize(stylizer_folder), RandOSASISStylize(stylizer_folder, prob=1.0)):
        found = transform(image)
        assert type(found) is type(image)
        assert found.shape == image.shape
        assert found.dtype == image.dtype
        assert not np.array_equal(np.asarray(found), np.asarray(image))
        if kind == "meta":
            assert found.meta["patient"] == "p1"


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16", "float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_dtypes_are_kept(stylizer_folder: Path, dtype: str, kind: str) -> None:
    plain = draw(1)
    found = OSASISStylize(stylizer_folder)(KINDS[kind](plain.astype(dtype)))
    expected = OSASISStylize(stylizer_folder)(plain.astype(np.float32))
    assert str(found.dtype).removeprefix("torch.") == dtype
    np.testing.assert_allclose(np.asarray(found, dtype=np.float64), expected, atol=0.51 if "int" in dtype else 0.15)


def test_brain_float_is_kept(stylizer_folder: Path) -> None:
    image = torch.as_tensor(draw(1)).bfloat16()
    assert OSASISStylize(stylizer_folder)(image).dtype == torch.bfloat16


def test_the_input_is_left_alone(stylizer_folder: Path) -> None:
    for kind in KINDS.values():
        image = kind(draw(1).astype(np.float32))
        data = {"image": image, "label": image}
        before = np.array(image)
        found = OSASISStylized("image", stylizer_folder)(data)
        assert np.array_equal(np.asarray(image), before)
        assert data["image"] is image
        assert found["label"] is image


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
@pytest.mark.parametrize(("axes", "order"), [("hwd", (2, 0, 1)), ("xyz", (2, 1, 0))])
def test_volumes_are_cut_along_the_chosen_axis(
    stylizer: OSASISStylizer, axis: int, axes: str, order: tuple[int, ...]
) -> None:
    volume = scan((3, 12, 10, 8))
    found = OSASISStylize(stylizer, slice_axis=axis, axes=axes, readout="local_affine")(volume)
    front = axis % 3
    places = [0, front + 1, *(i + 1 for i in order if i != front)]
    expected = stylizer.stylize_array(np.ascontiguousarray(volume.transpose(places)), readout="local_affine")
    assert np.array_equal(found, expected.transpose(np.argsort(places)))


@pytest.mark.parametrize(("spacing", "axis"), [((5, 1, 1), 0), ((1, 5, 1), 1), ((1, 1, 5), 2), ((1, 1, 1), 2)])
def test_by_default_volumes_are_cut_along_the_coarsest_axis(
    stylizer: OSASISStylizer, spacing: tuple[int, ...], axis: int
) -> None:
    volume = MetaTensor(scan((3, 12, 10, 8)), affine=torch.diag(torch.tensor([*map(float, spacing), 1.0])))
    auto, chosen = (OSASISStylize(stylizer, slice_axis=a, readout="local_affine") for a in ("auto", axis))
    assert torch.equal(auto(volume), chosen(volume))
    assert torch.equal(auto(volume).affine, volume.affine)


def test_volumes_whose_metadata_knows_two_axes_are_cut_along_the_last(stylizer: OSASISStylizer) -> None:
    """MONAI counts a volume that gained its channel axis later as two-dimensional."""
    volume = EnsureChannelFirst(channel_dim="no_channel")(np.zeros((20, 24, 6), np.float32))
    rgb = MetaTensor(volume.expand(3, -1, -1, -1) + torch.as_tensor(scan((3, 20, 24, 6))), meta=volume.meta)
    stacked = torch.stack([MetaTensor(scan((3, 20, 24), seed)) for seed in range(4)], dim=-1)
    for image in (rgb, stacked):
        chosen = OSASISStylize(stylizer, slice_axis=2, readout="local_affine")(image)
        assert torch.equal(OSASISStylize(stylizer, readout="local_affine")(image), chosen)


def test_strength_zero_is_the_identity(stylizer_folder: Path) -> None:
    for image in (draw(1), draw(1) / 3.0, draw(1).astype(np.int32) + 2**24, torch.rand(3, 8, 8, dtype=torch.float64)):
        found = OSASISStylize(stylizer_folder, strength=0)(image)
        assert np.array_equal(found, image)
        assert found is not image
        assert np.array_equal(RandOSASISStylize(stylizer_folder, prob=1, strength=0.0)(image), image)
    batch = np.stack([scan((3, 8, 8), seed) / 3.0 for seed in range(8)]).astype(np.float64)
    transform = RandOSASISStylize(stylizer_folder, prob=0.5, batched=True).set_random_state(3)
    found = transform(batch)
    kept = [strength == 0 for strength in transform.strengths]
    assert 0 < sum(kept) < 8
    assert np.array_equal(found[kept], batch[kept])


@pytest.mark.parametrize("shape", [(3, SIZE, SIZE), (3, 20, 16, 4)], ids=["images", "volumes"])
def test_a_batch_is_its_samples(stylizer_folder: Path, shape: tuple[int, ...]) -> None:
    images = np.stack([scan(shape, seed) for seed in range(3)])
    for options in ({}, {"readout": "local_affine"}, {"direction": "target_to_source"}):
        single, batched = (OSASISStylize(stylizer_folder, batched=b, **options) for b in (False, True))
        np.testing.assert_allclose(batched(images), np.stack([single(image) for image in images]), atol=1e-2)


def test_each_sample_of_a_batch_has_its_own_draw(stylizer_folder: Path) -> None:
    images = torch.as_tensor(np.stack([scan((3, SIZE, SIZE))] * 12))
    transform = RandOSASISStylize(stylizer_folder, prob=0.5, strength=(0.2, 1.0), batched=True).set_random_state(0)
    found = transform(images)
    kept = [torch.equal(f, i) for f, i in zip(found, images, strict=True)]
    assert 0 < sum(kept) < 12
    assert len({float(f.mean()) for f in found}) == 12 - sum(kept) + 1
    single = OSASISStylize(stylizer_folder)
    for image, result, strength in zip(images, found, transform.strengths, strict=True):
        torch.testing.assert_close(result, single(image, strength=strength), atol=1e-2, rtol=1e-4)


# --- the random ones ----------------------------------------------------------------------------------------------


def test_deterministic_ones_are_not_random_and_random_ones_are() -> None:
    assert not issubclass(OSASISStylize, Randomizable)
    assert not issubclass(OSASISStylized, Randomizable)
    assert issubclass(RandOSASISStylize, RandomizableTransform)
    assert issubclass(RandOSASISStylized, Randomizable)


def test_the_seed_decides(stylizer_folder: Path) -> None:
    image = {"image": draw(1).astype(np.float32)}
    transform = RandOSASISStylized("image", stylizer_folder, prob=0.7)

    def run(seed: int) -> list[np.ndarray]:
        transform.set_random_state(seed)
        return [transform(image)["image"] for _ in range(6)]

    first, again, other = run(3), run(3), run(4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_probability_and_strength_interval_are_kept(stylizer_folder: Path) -> None:
    transform = RandOSASISStylize(stylizer_folder, prob=0.3, strength=(0.4, 0.6)).set_random_state(0)
    drawn = []
    for _ in range(600):
        transform.randomize()
        drawn += transform.strengths
    applied = [s for s in drawn if s > 0]
    assert 0.25 < len(applied) / len(drawn) < 0.35
    assert 0.4 <= min(applied) < 0.42
    assert 0.58 < max(applied) <= 0.6
    never, always = (RandOSASISStylize(stylizer_folder, prob=p) for p in (0, 1))
    image = draw(2)
    assert never(image) is image
    assert not np.array_equal(always(image), image)


def test_keys_share_one_draw(stylizer_folder: Path) -> None:
    image = draw(1).astype(np.float32)
    transform = RandOSASISStylized(["a", "b"], stylizer_folder, prob=0.5).set_random_state(1)
    seen = set()
    for _ in range(12):
        found = transform({"a": image, "b": image})
        assert np.array_equal(found["a"], found["b"])
        seen.add(float(found["a"].mean()))
    assert len(seen) > 3


def test_a_draw_can_be_repeated(stylizer_folder: Path) -> None:
    transform = RandOSASISStylize(stylizer_folder, prob=1).set_random_state(0)
    image = draw(1).astype(np.float32)
    with pytest.raises(OsasisError, match="draw"):
        transform(image, randomize=False)
    first = transform(image)
    assert np.array_equal(transform(image, randomize=False), first)
    assert not np.array_equal(transform(image), first)


def test_names_are_monais() -> None:
    for base in ("OSASISStylize", "RandOSASISStylize"):
        versions = {getattr(monai_transforms, base + ending) for ending in ("d", "D", "Dict")}
        assert len(versions) == 1
        assert issubclass(getattr(monai_transforms, base), Transform)
        assert getattr(monai_transforms, base).backend == versions.pop().backend
