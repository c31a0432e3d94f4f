"""Checkpoints from elsewhere: damaged ones are refused before use, and none runs a program."""

import zipfile

import numpy as np
import pytest
import torch

from nnunet_osasis import OsasisError
from nnunet_osasis.nnunet.export.model_folder import read_checkpoint


def content(**changes):
    """What nnU-Net saves, with its numpy numbers and its device."""
    return {
        "network_weights": {"a.weight": torch.arange(6.0).reshape(2, 3), "a.steps": torch.tensor(3)},
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": None,
        "logging": {
            "losses": [np.float32(0.5), np.float64(0.25)],
            "dice": [[np.float32("nan")]],
            "epochs": [np.int64(1)],
        },
        "_best_ema": np.float32(0.5),
        "init_args": {"configuration": "2d", "fold": 0, "device": torch.device("cpu"), "plans": {}},
        "trainer_name": "nnUNetTrainerOSASIS",
        "inference_allowed_mirroring_axes": (0, 1),
    } | changes


@pytest.fixture
def saved(tmp_path):
    """Content to a file as torch writes it."""

    def save(value):
        torch.save(value, tmp_path / "checkpoint_final.pth")
        return tmp_path / "checkpoint_final.pth"

    return save


def test_what_nnunet_writes_is_read(saved):
    found = read_checkpoint(saved(content()))
    assert torch.equal(found["network_weights"]["a.weight"], torch.arange(6.0).reshape(2, 3))
    assert found["logging"]["losses"] == [0.5, 0.25]
    assert found["inference_allowed_mirroring_axes"] == (0, 1)


class Program:
    """What an attacker would put there; unpickling it calls ``open`` and leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("place", ["logging", "init_args", "network_weights"])
def test_a_program_in_a_checkpoint_is_refused_and_not_run(saved, tmp_path, place):
    value = content()
    value[place] = {**value[place], "more": Program(tmp_path / "ran")}
    path = saved(value)
    with pytest.raises(OsasisError, match=r"could run a program.*got .* in .*checkpoint_final\.pth"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_one_flipped_bit_anywhere_is_found(saved):
    path = saved(content())
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        records = {entry.filename: entry for entry in archive.infolist() if entry.file_size}
    for name, entry in records.items():
        start = whole.index(archive_name := name.encode(), entry.header_offset) + len(archive_name)
        extra = int.from_bytes(whole[entry.header_offset + 28 : entry.header_offset + 30], "little")
        damaged = bytearray(whole)
        damaged[start + extra + entry.file_size // 2] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(OsasisError, match=r"must be whole; got a wrong checksum of .*Copy the file again"):
            read_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(saved, share):
    path = saved(content())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(OsasisError, match="must be whole"):
        read_checkpoint(path)


def test_other_files_are_refused_by_name(saved, tmp_path):
    with pytest.raises(OsasisError, match=r"must exist; got no file .*gone\.pth\. Finish the training"):
        read_checkpoint(tmp_path / "gone.pth")
    with pytest.raises(OsasisError, match="must exist"):
        read_checkpoint(tmp_path)
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(OsasisError, match="must be whole"):
        read_checkpoint(tmp_path / "text.pth")
    with zipfile.ZipFile(tmp_path / "archive.pth", "w") as archive:
        archive.writestr("notes.txt", "not a checkpoint")
    with pytest.raises(OsasisError, match="must be whole"):
        read_checkpoint(tmp_path / "archive.pth")
    for value, missing in (({"a": 1}, "network_weights"), ([1, 2], "trainer_name"), (torch.zeros(2), "init_args")):
        with pytest.raises(OsasisError, match=f"checkpoint of nnU-Net; got no .*{missing}"):
            read_checkpoint(saved(value))
    with pytest.raises(OsasisError, match="got no configuration"):
        read_checkpoint(saved(content(init_args={})))


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_weights_that_are_no_numbers_are_refused(saved, value):
    weights = {"fine": torch.ones(2), "broken": torch.tensor([1.0, float(value)])}
    with pytest.raises(OsasisError, match=r"must be finite; got NaN or infinity in broken"):
        read_checkpoint(saved(content(network_weights=weights)))


@pytest.mark.parametrize("weights", [{}, {"a": [1.0]}, {"a": "text"}, {1: torch.ones(1)}, "text", None])
def test_weights_that_are_no_tensors_are_refused(saved, weights):
    with pytest.raises(OsasisError, match="network_weights"):
        read_checkpoint(saved(content(network_weights=weights)))
