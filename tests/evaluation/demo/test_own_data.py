"""A user's own folders: what fits is used as it is, what does not is named."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.demo.own_data import binarise, find_pairs, read_pair, write_own_data
from nnunet_osasis.evaluation.demo.settings import DemoSettings
from nnunet_osasis.evaluation.demo.workspace import Workspace
from nnunet_osasis.nnunet.raw_dataset import read_images, read_masks, read_png
from nnunet_osasis.synthetic.phantoms import render_pair


def _folder(root, count, scanner, *, size=40):
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        *views, mask = render_pair(index, size)
        Image.fromarray(views[scanner]).save(root / "images" / f"case{index}.png")
        Image.fromarray(mask * 255).save(root / "masks" / f"case{index}.png")
    return root


@pytest.fixture
def folders(tmp_path):
    return _folder(tmp_path / "a", 8, 0), _folder(tmp_path / "b", 4, 1)


def test_split_is_disjoint_and_reference_is_no_test_image(tmp_path, folders):
    settings = DemoSettings(output=tmp_path / "out", source=folders[0], target=folders[1], own_side=40)
    workspace = Workspace(settings.output)
    data = write_own_data(settings, workspace)
    tests, training = read_images(workspace.test_images), read_images(workspace.training_images)
    assert (len(training), data["test_source"], data["test_target"]) == (6, 2, 3)
    pictures = [image.tobytes() for image in [*tests.values(), *training.values(), read_png(workspace.reference)]]
    assert len(set(pictures)) == len(pictures) == 12
    assert read_masks(workspace.test_masks).keys() == tests.keys()
    assert all(set(np.unique(mask)) == {0, 1} for mask in read_masks(workspace.training_masks).values())


def test_large_images_shrink_and_grey_ones_become_rgb(tmp_path):
    Image.fromarray(np.full((100, 300), 90, dtype=np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.full((100, 300), 255, dtype=np.uint8)).save(tmp_path / "mask.png")
    image, mask = read_pair(tmp_path / "grey.png", tmp_path / "mask.png", 150)
    assert image.shape == (50, 150, 3) and mask.shape == (50, 150) and mask.min() == 1


def test_masks_of_either_convention_are_binarised():
    assert binarise(np.array([0, 1])).tolist() == [0, 1]
    assert binarise(np.array([0, 100, 128, 255])).tolist() == [0, 0, 1, 1]
    assert binarise(np.array([0, 0])).tolist() == [0, 0]


def test_missing_folders_and_partners_are_named(tmp_path, folders):
    with pytest.raises(OsasisError, match="no folder"):
        find_pairs(tmp_path / "nowhere")
    (folders[0] / "masks" / "case3.png").unlink()
    with pytest.raises(OsasisError, match=r"case3\.png"):
        find_pairs(folders[0])
    for path in (folders[1] / "masks").iterdir():
        path.unlink()
    (folders[1] / "masks").rmdir()
    with pytest.raises(OsasisError, match="masks"):
        find_pairs(folders[1])


def test_mask_of_another_size_is_refused(folders):
    Image.new("L", (20, 20)).save(folders[0] / "masks" / "case0.png")
    with pytest.raises(OsasisError, match="same size"):
        read_pair(*find_pairs(folders[0])[0], 40)


def test_sixteen_bit_images_are_refused(tmp_path, folders):
    Image.fromarray(np.zeros((40, 40), dtype=np.uint16)).save(folders[0] / "images" / "case0.png")
    with pytest.raises(OsasisError, match="8-bit"):
        read_pair(*find_pairs(folders[0])[0], 40)


def test_too_few_images_are_refused(tmp_path, folders):
    settings = DemoSettings(output=tmp_path / "out", source=folders[1], target=folders[0])
    with pytest.raises(OsasisError, match="at least 8 source"):
        write_own_data(settings, Workspace(settings.output))


def test_half_a_pair_of_folders_is_refused(tmp_path):
    with pytest.raises(OsasisError, match="both --source and --target"):
        DemoSettings(output=tmp_path, source=tmp_path)


def test_a_users_own_in_domain_test_set_leaves_all_source_images_for_training(tmp_path, folders):
    other = _folder(tmp_path / "c", 3, 0, size=48)
    settings = DemoSettings(
        output=tmp_path / "out", source=folders[0], target=folders[1], source_test=other, own_side=48
    )
    workspace = Workspace(settings.output)
    data = write_own_data(settings, workspace)
    assert (data["training"], data["test_source"], data["test_target"]) == (8, 3, 3)
    with pytest.raises(OsasisError, match="--source-test"):
        DemoSettings(output=tmp_path / "out", source_test=other)
