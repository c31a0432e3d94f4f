"""The frame of the source images: learned when a stylizer is made, told, stored, and the same through every door."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from specimens import draw, second_camera, tiny_preset

from monai_transforms import OSASISStylize
from nnunet_osasis import OSASISStylizer
from nnunet_osasis.maps.field_of_view import NO_FRAME, Frame
from nnunet_osasis.nnunet.on_the_fly.transfer import OnePassTransfer
from nnunet_osasis.runtime.records import write_sealed_json
from nnunet_osasis.scripts import info, pretrain_stylizer
from nnunet_osasis.synthetic.ultrasound import draw_ultrasound
from nnunet_osasis.training import presets

RIM = np.hypot(*np.mgrid[-1:1:60j, -1:1:60j]) > 0.95


def scene(seed: int) -> np.ndarray:
    """A round view in a frame of gray levels 11 to 14, ``(3, 60, 60)`` uint8."""
    frame = 11 + np.random.default_rng(seed).integers(0, 4, (3, 60, 60))
    return np.where(RIM, frame, draw(seed, size=60)).astype(np.uint8)


def make(root: Path, images: list[np.ndarray], style: np.ndarray) -> Path:
    """Run the command up to the maps."""
    (root / "images").mkdir()
    for i, image in enumerate([*images, style]):
        path = root / ("style.png" if i == len(images) else f"images/{i}.png")
        Image.fromarray(np.moveaxis(image, 0, -1).squeeze()).save(path)
    pretrain_stylizer.main([
        "--images", str(root / "images"), "--style", str(root / "style.png"), "--output", str(root / "stylizer"),
        "--calibrator-iterations", "0", "--stop-after", "maps", "-device", "cpu",
    ])  # fmt: skip
    return root / "stylizer"


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(presets.PRESETS, "tiny", tiny_preset())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path, [scene(i) for i in range(6)], second_camera(scene(9)))


def test_a_frame_is_told_by_the_commands_and_the_readme_and_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path, [scene(i) for i in range(6)], second_camera(scene(9)))
    stylizer = OSASISStylizer.from_pretrained(folder)
    assert stylizer.frame is not None and stylizer.frame.share == 1
    assert 13.5 < (stylizer.frame.limit + 1) * 127.5 < 15
    told = str(stylizer.frame)
    assert "in 100 % of the source images" in told
    assert f"- frame: {told}" in (folder / "README.md").read_text()
    assert f"Frame: {told}" in capsys.readouterr().out
    info.main([str(folder)])
    assert f"Frame: {told}." in capsys.readouterr().out
    info.main([str(folder), "--json"])
    assert json.loads(capsys.readouterr().out)["frame"] == stylizer.frame.to_json()
    image = scene(20)
    found = stylizer.stylize_array(image)
    assert np.abs(found - image)[:, RIM].max() < 1e-4
    assert np.abs(found - image)[:, ~RIM].mean() > 2


def test_every_door_keeps_the_same_frame(folder: Path) -> None:
    stylizer, image = OSASISStylizer.from_pretrained(folder), scene(21)
    library = stylizer.stylize_array(image)
    np.testing.assert_array_equal(OSASISStylize(folder, gate=False)(image.astype(np.float32)), library)
    np.testing.assert_allclose(OnePassTransfer(stylizer).stylize_array(image), library, atol=1e-3)
    volume = stylizer.stylize_array(np.stack([image, scene(22)], axis=1))
    np.testing.assert_array_equal(volume[:, 0], library)
    corner = stylizer.stylize_array(image[:, :30, :30])  # a patch: what is frame does not depend on what else is seen
    np.testing.assert_allclose(corner, library[:, :30, :30], atol=1e-3)


def test_a_frame_outlives_folders_and_pickles_and_is_part_of_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    stylizer = OSASISStylizer.from_pretrained(folder)
    again = OSASISStylizer.from_pretrained(stylizer.save_pretrained(tmp_path / "again"))
    assert again.frame == stylizer.frame == pickle.loads(pickle.dumps(stylizer)).frame  # noqa: S301
    assert again.fingerprint == stylizer.fingerprint
    other = OSASISStylizer.from_state(replace(stylizer.state, frame=Frame(-1.0, 1.0, 0.3)))
    assert len({other.fingerprint, OSASISStylizer.from_state(replace(stylizer.state, frame=None)).fingerprint,
                stylizer.fingerprint}) == 3  # fmt: skip


def test_the_way_back_keeps_the_frame_of_the_reference(folder: Path) -> None:
    stylizer = OSASISStylizer.from_pretrained(folder)
    image = second_camera(scene(23)).astype(np.float32)
    back = stylizer.stylize_array(image, direction="target_to_source")
    assert 20 < image[:, RIM].max() < 40  # brighter than the source's
    assert np.abs(back - image)[:, RIM].max() < 1e-4
    assert np.abs(back - image)[:, ~RIM].mean() > 2


def test_ultrasound_has_no_frame_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    style = (0.55 * draw_ultrasound(77, 64)[0]).astype(np.uint8)
    folder = make(tmp_path, [draw_ultrasound(i, 64)[0] for i in range(6)], style)
    assert f"Frame: {NO_FRAME}" in capsys.readouterr().out
    assert NO_FRAME in (folder / "README.md").read_text()
    stylizer = OSASISStylizer.from_pretrained(folder)
    assert stylizer.frame is None
    for seed in range(30, 36):
        image = draw_ultrasound(seed, 64)[0].astype(np.float32)
        for readout in ("moments", "combined"):
            found = stylizer.stylize_array(image, readout=readout)
            means = [found[image == value].mean() for value in np.unique(image)]
            assert max(np.ptp(found[image == value]) for value in np.unique(image)) < 0.01
            assert np.diff(means).min() >= -0.01


def test_a_folder_from_before_frames_were_learned_is_read_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = json.loads((folder / "stylizer.json").read_text())
    del index["frame"], index["seal"]
    write_sealed_json(folder / "stylizer.json", index)
    assert OSASISStylizer.from_pretrained(folder).frame is None
    assert "before frames were learned" in caplog.text
