"""A bit that a disk lost is found before anything is made of it: weights, checkpoints, caches, records, manifests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from specimens import build_tiny

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.evaluation.experiment import tasks as work
from nnunet_osasis.runtime.records import SEAL, write_sealed_json
from nnunet_osasis.stylizer.archive.record import MANIFEST
from nnunet_osasis.stylizer.archive.run import stylize_folder
from nnunet_osasis.stylizer.serialization import INDEX, read_index
from nnunet_osasis.training.checkpoint import EMA, Checkpoint

from .damage import flip, some_bits


@pytest.fixture
def folder(stylizer_folder: Path, tmp_path: Path) -> Path:
    """A stylizer that a test may damage."""
    shutil.copytree(stylizer_folder, tmp_path / "s")
    return tmp_path / "s"


def test_a_flipped_bit_in_any_file_of_a_stylizer_is_refused(folder: Path) -> None:
    files = [folder / name for name in read_index(folder)["sha256"]]
    assert len(files) == 10
    for file in files:
        for bit in some_bits(file, 2):
            flip(file, bit)
            with pytest.raises(OsasisError, match="copy the folder again"):
                OSASISStylizer.from_pretrained(folder).load_networks()
            flip(file, bit)
    OSASISStylizer.from_pretrained(folder).load_networks()


def test_a_flipped_bit_in_a_stylizers_index_is_refused_whatever_it_stands_for(folder: Path) -> None:
    whole, refused = read_index(folder), list[str]()
    bits = list(some_bits(folder / INDEX, 500))
    for bit in bits:
        flip(folder / INDEX, bit)
        try:
            assert read_index(folder) == whole
        except OsasisError as error:
            refused.append(str(error))
        flip(folder / INDEX, bit)
    assert len(refused) > 0.98 * len(bits)
    assert all("anew" in text or "Use the version" in text for text in refused)


def test_a_changed_number_in_the_index_is_refused(folder: Path) -> None:
    text = (folder / INDEX).read_text()
    index = json.loads(text)
    index["config"]["readout"] = "raw"
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(OsasisError, match="as it was written"):
        OSASISStylizer.from_pretrained(folder)


def test_a_stylizer_of_a_later_format_is_refused_with_the_remedy(folder: Path) -> None:
    write_sealed_json(folder / INDEX, read_index(folder) | {"format": 99})
    with pytest.raises(OsasisError, match="Use the version"):
        OSASISStylizer.from_pretrained(folder)


def checkpoint(path: Path) -> tuple[Checkpoint, tuple]:
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return Checkpoint(path, "run"), ({"net": net}, {"net": EMA(net, 0.9)}, {"adamw": optimizer})


def test_every_flipped_bit_of_a_checkpoint_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    kept, states = checkpoint(tmp_path / "c.safetensors")
    kept.save(7, *states, done=False)
    expected = {name: value.clone() for name, value in states[0]["net"].state_dict().items()}
    bits, refused = list(some_bits(kept.path, 1500)), list[str]()
    for bit in bits:
        flip(kept.path, bit)
        try:
            assert kept.load(*states) == (7, False)
        except OsasisError as error:
            refused.append(str(error).lower())
        flip(kept.path, bit)
        assert all(torch.equal(value, expected[name]) for name, value in states[0]["net"].state_dict().items())
    assert len(refused) > 0.9 * len(bits)
    assert all("delete it to start again" in text for text in refused)


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    kept, states = checkpoint(tmp_path / "c.safetensors")
    kept.save(7, *states, done=False)
    with safe_open(kept.path, framework="pt") as opened:
        metadata, tensors = dict(opened.metadata()), {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    del metadata["sha256"]
    save_file(tensors, kept.path, metadata=metadata)
    assert kept.load(*states) == (7, False)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    kept, states = checkpoint(tmp_path / "c.safetensors")
    kept.save(7, *states, done=False)
    kept.path.write_bytes(kept.path.read_bytes()[:-9])
    with pytest.raises(OsasisError, match="Delete it to start again"):
        kept.load(*states)


def test_damaged_results_and_manifests_of_a_stylized_folder_are_made_anew(
    stylizer_folder: Path, image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stylizer = OSASISStylizer.from_pretrained(stylizer_folder)
    masks = image_folder / "masks"

    def run() -> int:
        return stylize_folder(stylizer, image_folder / "images", tmp_path, masks=masks)

    assert run() == 6
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    flip(tmp_path / "case 2.png", 800)
    assert run() == 1
    flip(tmp_path / "masks/case 4.png", 800)
    assert run() == 0
    assert (tmp_path / "masks/case 4.png").read_bytes() == (masks / "case 4.png").read_bytes()
    for bit in some_bits(tmp_path / MANIFEST, 3):
        flip(tmp_path / MANIFEST, bit)
        assert run() == 6
        assert "Every result is made anew" in caplog.text
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == whole


def test_a_manifest_of_an_earlier_version_is_kept_and_gets_its_seal(
    stylizer_folder: Path, image_folder: Path, tmp_path: Path
) -> None:
    stylizer = OSASISStylizer.from_pretrained(stylizer_folder)
    stylize_folder(stylizer, image_folder / "images", tmp_path)
    sealed = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({key: value for key, value in sealed.items() if key != SEAL}))
    assert stylize_folder(stylizer, image_folder / "images", tmp_path) == 0
    assert json.loads((tmp_path / MANIFEST).read_text()) == sealed


def test_damaged_records_and_predictions_of_a_report_are_not_used(tmp_path: Path) -> None:
    file, record = tmp_path / "c.npz", tmp_path / "c.json"
    work.save_pictures(file, {"a": np.arange(12).reshape(3, 4), "b": np.zeros((2, 2))})
    values = {"key": "k", "cell": "c", "file_sha256": work.sha256_of_file(file)}
    write_sealed_json(record, values)
    assert work.finished(record, "k") == values and work.finished(record, "other") is None
    assert work.holds(file, ["a", "b"], values)
    for bit in some_bits(record, 60):
        flip(record, bit)
        assert work.finished(record, "k") in (None, values)
        flip(record, bit)
    for bit in some_bits(file, 60):
        flip(file, bit)
        assert not work.holds(file, ["a", "b"], values)
        flip(file, bit)
    assert not work.holds(file, ["a"], values)


def test_a_stylizer_made_twice_has_the_same_index(stylizer_folder: Path, tmp_path: Path) -> None:
    build_tiny(tmp_path / "anew")
    assert (tmp_path / "anew" / INDEX).read_bytes() == (stylizer_folder / INDEX).read_bytes()
