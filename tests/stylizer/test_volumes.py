"""Volumes: cut along the right axis, one range, one code and one field of view, so that neighbouring slices agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from specimens import build_tiny, draw, unit_images

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.images.intensity import IntensityRange, from_unit, infer_range, to_unit
from nnunet_osasis.images.io import read_image
from nnunet_osasis.images.slices import read_in_slices, slice_axis, slices_back, slices_first
from nnunet_osasis.maps.field_of_view import Frame, field_of_view
from nnunet_osasis.maps.local_affine import fit_local_affine
from nnunet_osasis.stylizer.archive.run import stylize_folder
from nnunet_osasis.stylizer.names import READOUTS
from nnunet_osasis.synthetic.phantom.anatomy import draw_anatomy
from nnunet_osasis.synthetic.phantom.scanner import SCANNER_A, acquire_pair
from nnunet_osasis.training.sources import load_sources

# --- which axis ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [((5, 1, 1), 0), ((1, 5, 1), 1), ((1, 1, 5), 2), ((1, 1, 1), 0), ((1, 1, 1.02), 0), ((2, 3, 3), 0), (None, 0)],
)
def test_the_coarsest_axis_is_cut_along(spacing: tuple | None, axis: int) -> None:
    assert slice_axis(spacing) == axis


def test_a_single_slice_is_not_cut_into_lines() -> None:
    assert slice_axis(None, (30, 1, 20)) == slice_axis((5.0, 1.0, 1.0), (30, 1, 20)) == 1
    assert slice_axis((5.0, 1.0, 1.0), (1, 1, 20)) == 0
    assert slice_axis((1.0, 1.0, 5.0), (30, 20, 20)) == 2


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, -1, 1), (1, float("nan"), 1)])
def test_an_impossible_spacing_is_refused(spacing: tuple) -> None:
    with pytest.raises(OsasisError, match="spacing"):
        slice_axis(spacing)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_moving_the_axis_to_the_front_and_back_is_the_identity(axis: int) -> None:
    volume = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert slices_first(volume, axis).shape[1] == volume.shape[axis + 1]
    assert np.array_equal(slices_back(slices_first(volume, axis), axis), volume)
    assert slices_first(volume[:, 0], axis) is not None
    assert slices_first(volume[:, 0], axis).shape == (2, 4, 5)


def write_volume(path: Path, array: np.ndarray, spacing: tuple[float, float, float]) -> Path:
    """``(D, H, W)`` with the spacing of its axes."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    image.SetOrigin((7.0, -3.0, 11.0))
    sitk.WriteImage(image, path)
    return path


@pytest.mark.parametrize(("spacing", "axis"), [((4.0, 1.0, 1.0), 0), ((1.0, 4.0, 1.0), 1), ((1.0, 1.0, 4.0), 2)])
def test_files_are_read_and_stylized_along_their_coarsest_axis(
    tmp_path: Path, grey: OSASISStylizer, spacing: tuple[float, float, float], axis: int
) -> None:
    volume = np.stack([draw(i, channels=1, size=20)[0, :16] for i in range(12)])  # (12, 16, 20)
    (tmp_path / "in").mkdir()
    path = write_volume(tmp_path / "in/v.nii.gz", volume, spacing)
    assert read_image(path).spacing == pytest.approx(spacing)
    sliced = read_in_slices(path)
    assert np.array_equal(sliced, np.moveaxis(volume[None], axis + 1, 1))
    stylize_folder(grey.configured(readout="local_affine"), tmp_path / "in", tmp_path / "out")
    written = read_image(tmp_path / "out/v.nii.gz")
    expected = grey.stylize_array(sliced, readout="local_affine")
    found = np.moveaxis(written.array, axis + 1, 1)
    np.testing.assert_allclose(found, np.clip(np.rint(expected), 0, 255), atol=1)
    assert written.spacing == pytest.approx(spacing)
    assert written.geometry.origin == pytest.approx((7.0, -3.0, 11.0))


def test_training_slices_come_from_the_coarsest_axis(tmp_path: Path) -> None:
    write_volume(tmp_path / "v.nii.gz", np.random.default_rng(0).normal(100, 20, (12, 16, 20)).astype("f4"), (1, 4, 1))
    from nnunet_osasis.training.sources import folder_arrays

    sources, _ = load_sources(folder_arrays(tmp_path), 32)
    assert len(sources) == 16


# --- one range, one code, one field of view -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> OSASISStylizer:
    return build_tiny(tmp_path_factory.mktemp("grey") / "s", channels=1)


@pytest.mark.parametrize("readout", READOUTS)
def test_a_single_slice_volume_is_its_image(stylizer: OSASISStylizer, readout: str) -> None:
    for image in (draw(3).astype(np.float32), draw(3, size=45).astype(np.float32)):
        found = stylizer.stylize_array(image[:, None], readout=readout)
        assert np.array_equal(found[:, 0], stylizer.stylize_array(image, readout=readout))


@pytest.mark.parametrize("readout", READOUTS)
def test_equal_slices_stay_equal(stylizer: OSASISStylizer, readout: str) -> None:
    volume = np.stack([draw(3).astype(np.float32)] * 20, axis=1)  # more than one batch of the networks
    found = stylizer.stylize_array(volume, readout=readout)
    np.testing.assert_allclose(found, found[:, :1].repeat(20, axis=1), atol=0.05)


def test_slices_share_one_code(stylizer: OSASISStylizer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def remember(_: object, unit: torch.Tensor, code: torch.Tensor, *__: object) -> torch.Tensor:
        seen.append(code)
        return torch.zeros_like(unit)

    monkeypatch.setattr("nnunet_osasis.diffusion.transfer.encode_images", remember)
    images = unit_images(10)
    images[0] = -1  # air says nothing about the volume
    stylizer.decode_style(images, joint=True)
    codes = torch.cat(seen)
    assert (codes == codes[0]).all()
    single = [stylizer.autoencoder.semantic_encoder(image[None]) for image in images[1:]]
    torch.testing.assert_close(codes[0], torch.cat(single).mean(0), atol=1e-4, rtol=1e-4)
    seen.clear()
    stylizer.decode_style(images)
    assert len({tuple(code.tolist()) for code in torch.cat(seen)}) == 10


AIR = Frame(limit=-0.99, share=1.0, area=0.5)


def test_a_volumes_frame_is_one_region() -> None:
    """Slices of nothing but air belong to the frame; a dark spot inside belongs to the image in every slice."""
    volume = torch.full((5, 1, 16, 16), -1.0)
    volume[1:4, :, 4:12, 4:12] = 0.5
    volume[2, :, 7, 7] = -1.0
    alone, together = field_of_view(volume, AIR), field_of_view(volume, AIR, joint=True)
    assert alone[0].all()
    assert not together[[0, 4]].any()
    assert together[2, 0, 7, 7]
    assert not together[2, 0, 0, 0]
    assert field_of_view(torch.full((3, 1, 4, 4), -1.0), AIR, joint=True).all()


def test_a_dark_region_that_reaches_the_edge_in_one_slice_is_frame_in_all() -> None:
    volume = torch.full((3, 1, 9, 9), 0.5)
    volume[:, :, 4, 2:6] = -1.0
    volume[1, :, 4, :6] = -1.0
    assert not field_of_view(volume, AIR, joint=True)[:, 0, 4, 2:6].any()
    assert field_of_view(volume, AIR)[0, 0, 4, 2:6].all()


def test_a_window_over_slices_is_the_mean_of_its_slices() -> None:
    guide, target = unit_images(7, channels=2), unit_images(7, channels=2, first=20)
    alike = guide[:1].repeat(7, 1, 1, 1), target[:1].repeat(7, 1, 1, 1)
    for joint, single in zip(fit_local_affine(*alike, slices=2), fit_local_affine(*alike), strict=True):
        torch.testing.assert_close(joint, single, atol=1e-4, rtol=1e-4)
    slope, offset = fit_local_affine(guide, target, slices=2)
    rough, rough_offset = fit_local_affine(guide, target)
    for smooth, plain in ((slope, rough), (offset, rough_offset)):
        assert smooth.shape == plain.shape
        assert (smooth[1:] - smooth[:-1]).abs().mean() < 0.5 * (plain[1:] - plain[:-1]).abs().mean()


def test_channels_with_units_of_their_own_are_scaled_by_themselves() -> None:
    rng = np.random.default_rng(0)
    volume = np.stack([rng.normal(800, 200, (4, 9, 9)), rng.normal(2, 0.5, (4, 9, 9))]).astype(np.float32)
    intensity = infer_range([volume])
    assert intensity.kind == "channel_percentile"
    bounds = intensity.bounds(volume)
    unit = to_unit(volume, bounds)
    assert np.allclose(unit.min((1, 2, 3)), -1)
    assert np.allclose(unit.max((1, 2, 3)), 1)
    np.testing.assert_allclose(from_unit(unit, bounds, original=volume), volume, rtol=1e-5)
    assert infer_range([volume[:1]]).kind == "percentile"
    assert infer_range([volume[[0, 1, 1]]]).kind == "percentile"
    assert infer_range([volume[[0, 1, 1]]], ["ZScoreNormalization"] * 3).kind == "channel_percentile"
    with pytest.raises(OsasisError, match="channel 1"):
        intensity.bounds(volume * np.array([1, 0])[:, None, None, None])


def test_nearly_constant_images_have_a_range() -> None:
    image = np.zeros((1, 40, 40), np.float32)
    image[0, 3, 4] = 7
    assert IntensityRange("percentile", 0.5, 99.5).bounds(image) == (0, 7)
    with pytest.raises(OsasisError, match="0 everywhere"):
        IntensityRange("percentile", 0.5, 99.5).bounds(image * 0)


def test_a_ct_window_needs_every_channel_to_be_ct() -> None:
    mixed = np.random.default_rng(0).normal(0, 300, (2, 4, 8, 8))
    assert infer_range([mixed], ["CTNormalization"] * 2, (-100, 300)).kind == "fixed"
    assert infer_range([mixed], ["CTNormalization", "ZScoreNormalization"], (-100, 300)).kind == "channel_percentile"


@pytest.mark.parametrize("readout", ["pair", "local_affine"])
def test_a_bright_spot_in_one_slice_does_not_darken_that_slice(grey: OSASISStylizer, readout: str) -> None:
    """With ranges taken from each scan, a slice by itself would get a range of its own, and flicker."""
    body = acquire_pair(0, noise=False, shape=(1, 32, 32))[0]
    volume = body.repeat(7, axis=1)
    volume[:, 3, 14:18, 14:18] *= 4
    stylizer = grey.configured(readout=readout, intensity=IntensityRange("percentile", 0.5, 99.5))
    together = stylizer.stylize_array(volume)
    alone = np.stack([stylizer.stylize_array(volume[:, z]) for z in range(7)], axis=1)

    def jump(found: np.ndarray) -> float:
        """How far the slice with the spot differs from its neighbour, far from the spot."""
        return float(np.abs(found[:, 3] - found[:, 2])[:, :8].mean())

    assert jump(volume) == 0
    assert jump(together) < 0.2 * jump(alone)


# --- the phantom --------------------------------------------------------------------------------------------------


def test_the_phantom_is_seeded_and_sampled() -> None:
    first, again, other = draw_anatomy(1), draw_anatomy(1), draw_anatomy(2)
    assert np.array_equal(first.signal, again.signal)
    assert not np.array_equal(first.signal, other.signal)
    assert first.signal.shape == (4, 24, 96, 96)
    assert 0 <= first.signal.min() < first.signal.max() <= 1
    for seed in range(8):
        mask = draw_anatomy(seed, shape=(12, 48, 48)).mask
        assert 20 < mask.sum() < 0.05 * mask.size
    a, b, mask, spacing = acquire_pair(3, 4, shape=(6, 32, 40), spacing=(5.0, 1.0, 1.0))
    assert a.shape == b.shape == (4, 6, 32, 40)
    assert mask.shape == (6, 32, 40)
    assert spacing == (5.0, 1.0, 1.0)
    clean, _, _, _ = acquire_pair(3, 4, noise=False, shape=(6, 32, 40))
    assert 0.5 < np.abs(a - clean).mean() / (SCANNER_A.noise * SCANNER_A.gain) < 1.5
    with pytest.raises(OsasisError, match="1 to 4"):
        acquire_pair(0, 5, shape=(4, 16, 16))
