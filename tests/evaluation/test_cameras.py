"""Known-truth cameras: what a target picture is, is known exactly, and its masks stay right."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.experiment import data as preparation
from nnunet_osasis.evaluation.experiment.config import experiment_from_json
from nnunet_osasis.synthetic.known_camera import KnownCamera, camera_from_json, random_camera

from .sites import image_set, picture, values, write_data

SEEDS = range(12)


@pytest.mark.parametrize("seed", [0, 3])
def test_a_seed_is_a_camera_and_its_noise_for_ever(seed: int) -> None:
    image = picture(1)
    first, again = random_camera(seed), camera_from_json({"seed": seed})
    assert first == again
    assert first.shoot(image, noise_seed=5).tobytes() == again.shoot(image, noise_seed=5).tobytes()
    assert not np.array_equal(first.shoot(image, noise_seed=5), first.shoot(image, noise_seed=6))
    assert not np.array_equal(first.shoot(image), random_camera(seed + 1).shoot(image))


def test_the_truth_has_neither_noise_nor_compression() -> None:
    camera = random_camera(0)
    camera = replace(camera, jpeg_quality=None, camera=replace(camera.camera, shot_noise=0.02))
    image = picture(1, size=(48, 48))
    clean = camera.shoot(image)
    noisy = np.stack([camera.shoot(image, noise_seed=seed) for seed in range(40)]).astype(float)
    assert np.array_equal(clean, camera.shoot(image))
    assert noisy.std(axis=0).mean() > 1
    assert np.abs(noisy.mean(axis=0) - clean).mean() < 1  # the noise is around the truth, not beside it
    assert np.array_equal(clean, replace(camera, jpeg_quality=10).shoot(image))
    assert not np.array_equal(
        camera.shoot(image, noise_seed=1), replace(camera, jpeg_quality=10).shoot(image, noise_seed=1)
    )


@pytest.mark.parametrize("size", [(32, 48), (41, 33)])
def test_the_frame_is_black_outside_and_keeps_the_middle(size: tuple[int, int]) -> None:
    camera = replace(random_camera(0), frame=0.8, jpeg_quality=None)
    view = camera.field_of_view(*size)
    assert not view[0, 0] and not view[-1, -1] and view[size[0] // 2, size[1] // 2]
    assert np.array_equal(view, view[::-1, ::-1])
    shot = camera.shoot(picture(2, size=size))
    assert (shot[:, ~view] == 0).all() and (shot[:, view] > 0).any(axis=0).all()
    assert replace(camera, frame=1.0).field_of_view(*size).all()


def test_masks_are_cut_where_the_frame_hides_the_lesion(tmp_path) -> None:
    spec = experiment_from_json(values())
    data = write_data(tmp_path)
    framed = replace(spec.targets[0], camera=replace(spec.targets[0].camera, frame=0.3))
    spec = replace(spec, targets=(framed, spec.targets[1]))
    prepared = preparation.prepare(spec, data)
    whole, cut = preparation.test_masks(prepared, spec, "source"), preparation.test_masks(prepared, spec, "camera")
    view = framed.camera.field_of_view(32, 32)
    for name, mask in whole.items():
        assert np.array_equal(cut[name], mask * view) and cut[name].sum() < mask.sum()
    for mask, true in zip(prepared.train_masks, prepared.truths["camera"].masks, strict=True):
        assert np.array_equal(true, mask * view)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_pixel_moves(seed: int) -> None:
    """The steepest place of an edge through the picture stays where it is, with every camera and after compression."""
    image = np.full((3, 32, 64), 60, np.uint8)
    image[:, :, 37:] = 170
    for noise in (None, 4):
        shot = random_camera(seed).shoot(image, noise_seed=noise).astype(float).mean(axis=(0, 1))
        assert abs(int(np.argmax(np.diff(shot))) - 36) <= (0 if noise is None else 1)


def test_grey_pictures_stay_grey_and_keep_their_shape() -> None:
    grey = picture(3, size=(32, 40))[:1]
    for noise in (None, 1):
        shot = random_camera(2).shoot(grey, noise_seed=noise)
        assert shot.shape == grey.shape and shot.dtype == np.uint8 and shot.std() > 1


@pytest.mark.parametrize(
    "image",
    [picture(0).astype(np.float32), picture(0).astype(np.uint16), picture(0)[:2], picture(0)[0]],
    ids=["floats", "16 bit", "two channels", "no channel axis"],
)
def test_other_pictures_are_refused(image: np.ndarray) -> None:
    with pytest.raises(OsasisError, match="8-bit"):
        random_camera(0).shoot(image)


@pytest.mark.parametrize("quality", [80, None])
def test_a_camera_survives_its_json(quality: int | None) -> None:
    camera = replace(random_camera(7), jpeg_quality=quality)
    assert camera_from_json(json.loads(json.dumps(camera.to_json()))) == camera


@pytest.mark.parametrize("key", ["gamma", "gains"])
def test_a_camera_lacking_a_parameter_or_with_one_too_many_is_refused(key: str) -> None:
    given = random_camera(0).to_json()
    with pytest.raises(OsasisError, match="unknown \\['zoom'\\]"):
        camera_from_json({**given, "zoom": 2})
    del given[key]
    with pytest.raises(OsasisError, match=f"missing \\['{key}'\\]"):
        camera_from_json(given)


def test_random_cameras_stay_in_their_documented_family() -> None:
    cameras = [random_camera(seed) for seed in range(200)]
    assert {camera.frame for camera in cameras} == {1.0, 0.93}
    assert all(isinstance(camera, KnownCamera) and 70 <= (camera.jpeg_quality or 0) <= 94 for camera in cameras)
    assert all(np.mean(camera.camera.gains) == pytest.approx(1, abs=1e-3) for camera in cameras)
    assert 0.35 < np.mean([camera.frame == 1 for camera in cameras]) < 0.65


def test_two_cameras_may_share_one_reference_pool(tmp_path) -> None:
    pool = image_set("a", include=["10-12"])
    targets = [{"name": f"camera_{seed}", "camera": {"seed": seed}, "reference_pool": pool} for seed in (1, 2)]
    prepared = preparation.prepare(experiment_from_json(values(targets=targets)), write_data(tmp_path))
    assert set(prepared.references) == {"camera_1", "camera_2"}
    assert not np.array_equal(prepared.references["camera_1"], prepared.references["camera_2"])
    pool["include"] = ["6", "10-12"]  # of which one is a training image
    with pytest.raises(OsasisError, match="equal pixels"):
        preparation.prepare(experiment_from_json(values(targets=targets)), tmp_path)
