"""Bad input and options: the rule, what was found, the remedy, and the key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor, list_data_collate
from specimens import SIZE, draw

from monai_transforms import OSASISStylize, OSASISStylized, RandOSASISStylized
from nnunet_osasis import OsasisError, OSASISStylizer

from .conftest import KINDS


def test_a_missing_key_is_monais_error(stylizer_folder: Path) -> None:
    for transform in (OSASISStylized, RandOSASISStylized):
        with pytest.raises(KeyError, match="absent"):
            transform("absent", stylizer_folder)({"image": draw(0)})
        data = {"image": draw(0)}
        assert transform("absent", stylizer_folder, allow_missing_keys=True)(data) == data


BAD = {
    "grey for colour": (np.zeros((1, 8, 8), np.float32), "3 channel"),
    "rank two": (np.zeros((8, 8), np.float32), "axes"),
    "rank five": (np.zeros((3, 2, 2, 2, 2), np.float32), "axes"),
    "nan": (np.full((3, 8, 8), np.nan, np.float32), "finite"),
    "infinite volume": (np.full((3, 8, 8, 4), np.inf, np.float32), "finite"),
    "empty": (np.zeros((3, 0, 8), np.float32), "numbers"),
    "empty volume": (np.zeros((3, 8, 8, 0), np.float32), "numbers"),
    "boolean": (np.ones((3, 8, 8), bool), "intensities"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", BAD)
def test_bad_images_name_key_and_rule(stylizer_folder: Path, case: str, kind: str) -> None:
    array, rule = BAD[case]
    for transform in (
        OSASISStylized(["image"], stylizer_folder),
        RandOSASISStylized(["image"], stylizer_folder, prob=1),
    ):
        with pytest.raises(OsasisError, match=f"key 'image': .*{rule}"):
            transform({"image": KINDS[kind](array)})


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"strength": 2}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"direction": "sideways"}, "direction"),
        ({"readout": "magic"}, "read-out"),
        ({"slice_axis": 3}, "slice axis"),
        ({"slice_axis": "x"}, "slice axis"),
        ({"slice_axis": True}, "slice axis"),
        ({"axes": "zyx"}, "order of axes"),
    ],
    ids=str,
)
def test_bad_options_are_refused_when_the_transform_is_made(stylizer_folder: Path, options: dict, rule: str) -> None:
    with pytest.raises(OsasisError, match=rule):
        OSASISStylized("image", stylizer_folder, **options)


@pytest.mark.parametrize(("options", "rule"), [({"prob": 1.1}, "prob"), ({"strength": (0.9, 0.1)}, "interval")])
def test_bad_random_options_are_refused(stylizer_folder: Path, options: dict, rule: str) -> None:
    with pytest.raises(OsasisError, match=rule):
        RandOSASISStylized("image", stylizer_folder, **options)


def test_batches_and_samples_are_not_confused(stylizer_folder: Path) -> None:
    single, batched = (OSASISStylized(["a", "b"], stylizer_folder, batched=b) for b in (False, True))
    sample = {"a": MetaTensor(draw(0)), "b": MetaTensor(draw(1))}
    collated = list_data_collate([sample] * 3)  # as many samples as channels: shaped like a volume
    with pytest.raises(OsasisError, match=r"key 'a': .*one sample at a time.*batched=True"):
        single(collated)
    assert batched(collated)["a"].shape == (3, 3, SIZE, SIZE)
    with pytest.raises(OsasisError, match="hold samples"):
        batched({"a": np.zeros((0, 3, 8, 8)), "b": np.zeros((0, 3, 8, 8))})
    uneven = {"a": np.stack([draw(0)] * 2), "b": np.stack([draw(0)] * 5)}
    with pytest.raises(OsasisError, match=r"key 'b': .*strength"):
        RandOSASISStylized(["a", "b"], stylizer_folder, prob=1, batched=True)(uneven)


def test_foreign_byte_order_is_read(stylizer_folder: Path) -> None:
    image = draw(1).astype(np.float32)
    transform = OSASISStylize(stylizer_folder)
    assert np.array_equal(transform(image.astype(">f4")), transform(image))


def test_no_stylizer_is_said_when_the_transform_is_made(tmp_path: Path) -> None:
    with pytest.raises(OsasisError, match="osasis-pretrain-stylizer"):
        OSASISStylized("image", tmp_path / "nothing")


def test_a_device_that_is_not_there_is_said(stylizer_folder: Path, stylizer: OSASISStylizer) -> None:
    with pytest.raises(OsasisError, match=r"key 'image': .*device"):
        OSASISStylized("image", stylizer_folder, device="cuda:99")({"image": draw(0)})
    with pytest.raises(OsasisError, match="device= goes with a stylizer folder"):
        OSASISStylized("image", stylizer, device="cpu")


def test_a_stylizer_replaced_behind_the_transforms_back_is_refused(stylizer_folder: Path, tmp_path: Path) -> None:
    first = OSASISStylizer.from_pretrained(stylizer_folder)
    first.save_pretrained(tmp_path / "s")
    transform = OSASISStylize(tmp_path / "s")
    first.configured(strength=0.3).save_pretrained(tmp_path / "s")
    with pytest.raises(OsasisError, match="must not change"):
        transform(draw(0))
    assert OSASISStylize(tmp_path / "s")(draw(0)).shape == (3, SIZE, SIZE)
