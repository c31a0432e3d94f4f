"""A stylizer without networks, or with networks that nobody asked for yet."""

from __future__ import annotations

import copy
import doctest
import importlib
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from specimens import draw, unit_images

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.stylizer import OSASISStylizer as AgainByAnotherName
from nnunet_osasis.stylizer.names import NETWORK_READOUTS
from nnunet_osasis.stylizer.networks import DIFFUSION
from nnunet_osasis.stylizer.serialization import StylizerState


@pytest.fixture
def maps_alone(stylizer: OSASISStylizer) -> OSASISStylizer:
    """What ``osasis-pretrain-stylizer`` leaves before it trains networks: maps, calibrator, reference, gate."""
    return OSASISStylizer(
        reference=stylizer.reference, maps=stylizer.maps, config=stylizer.config, calibrator=stylizer.calibrator,
        gate=stylizer.gate, card=stylizer.card, findings=stylizer.findings,
    )  # fmt: skip


@pytest.mark.parametrize(
    "module", ["diffusion.sampler", "gate.gate", "gate.thresholds", "stylizer.config", "stylizer.stylizer"]
)
def test_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"nnunet_osasis.{module}"))
    assert result.attempted and not result.failed


def test_one_class_by_two_names() -> None:
    assert AgainByAnotherName is OSASISStylizer


def test_maps_need_no_networks(stylizer: OSASISStylizer, maps_alone: OSASISStylizer, tmp_path: Path) -> None:
    again = OSASISStylizer.from_pretrained(maps_alone.save_pretrained(tmp_path / "s"))
    assert not again.has_networks and stylizer.has_networks
    assert again.in_channels == 3
    assert again.size == stylizer.calibrator.config.sample_size
    assert np.array_equal(again.stylize_array(draw(1)), stylizer.stylize_array(draw(1)))
    assert again.fingerprint == maps_alone.fingerprint == stylizer.fingerprint
    assert "no diffusion networks yet" in (tmp_path / "s/README.md").read_text()


@pytest.mark.parametrize("readout", NETWORK_READOUTS)
def test_read_outs_that_need_networks_say_how_to_get_them(maps_alone: OSASISStylizer, readout: str) -> None:
    with pytest.raises(OsasisError, match=r"raw, local_affine.*without autoencoder.*--resume"):
        maps_alone.stylize(unit_images(1), readout=readout)


def test_a_stylizer_with_networks_replaces_one_without_and_back(
    stylizer: OSASISStylizer, maps_alone: OSASISStylizer, tmp_path: Path
) -> None:
    folder = maps_alone.save_pretrained(tmp_path / "s")
    assert OSASISStylizer.from_pretrained(stylizer.save_pretrained(folder)).has_networks
    assert not OSASISStylizer.from_pretrained(maps_alone.save_pretrained(folder)).has_networks
    assert not any((folder / name).exists() for name in DIFFUSION)


def test_a_map_reads_no_network(stylizer_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(stylizer_folder, tmp_path / "s")
    stylizer = OSASISStylizer.from_pretrained(folder)
    for name in DIFFUSION:
        shutil.rmtree(folder / name)
    assert stylizer.stylize_array(draw(0)).shape == draw(0).shape
    assert stylizer.fingerprint
    with pytest.raises(OsasisError, match="must be complete"):
        stylizer.stylize(unit_images(1), readout="raw")


def test_a_map_imports_no_heavy_library(stylizer_folder: Path) -> None:
    code = (
        "import sys, numpy as np; from nnunet_osasis import OSASISStylizer\n"
        f"OSASISStylizer.from_pretrained({str(stylizer_folder)!r}).stylize_array(255 * np.stack([np.eye(512)] * 3))\n"
        "print([m for m in ('diffusers', 'torchvision', 'skimage', 'monai', 'nnunetv2', 'accelerate', 'matplotlib')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_networks_read_while_restyling_can_still_be_trained(stylizer_folder: Path) -> None:
    stylizer = OSASISStylizer.from_pretrained(stylizer_folder)
    stylizer.stylize(unit_images(1), readout="raw")
    unet = stylizer.decoder.requires_grad_(True)
    unet(unit_images(1), torch.zeros(1), torch.zeros(1, unet.z_dim)).sum().backward()


def test_threads_that_read_networks_at_once_get_equal_ones(stylizer_folder: Path) -> None:
    stylizer, images = OSASISStylizer.from_pretrained(stylizer_folder), unit_images(1)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: stylizer.stylize(images, readout="raw"), range(4)))
    assert all(torch.equal(result, results[0]) for result in results)
    assert torch.nn.Linear(1, 1).weight.device == torch.device("cpu")


def test_copies_share_the_networks_and_replacing_one_leaves_the_other(stylizer: OSASISStylizer) -> None:
    other = stylizer.configured(readout="raw")
    assert other.decoder is stylizer.decoder
    other.decoder = stylizer.autoencoder.make_unet()
    assert other.decoder is not stylizer.decoder
    assert other.autoencoder is stylizer.autoencoder


def test_a_pickle_holds_what_its_read_out_runs(stylizer: OSASISStylizer) -> None:
    images = unit_images(2)
    raw = stylizer.configured(readout="raw")
    data = pickle.dumps(raw)
    again = pickle.loads(data)  # noqa: S301 (our own bytes)
    assert torch.equal(again.stylize(images), raw.stylize(images))
    assert pickle.dumps(again) == data
    small = pickle.dumps(stylizer)
    assert len(small) < len(data) / 10
    worker = pickle.loads(small)  # noqa: S301 (our own bytes)
    assert torch.equal(worker.stylize(images), stylizer.stylize(images))
    assert list(worker.networks) == []
    with pytest.raises(OsasisError, match=r"pickle stylizer.configured\(readout"):
        worker.stylize(images, readout="raw")


def test_a_state_survives_bytes_and_folders(stylizer: OSASISStylizer, tmp_path: Path) -> None:
    state = stylizer.configured(readout="frequency").state
    for again in (StylizerState.from_bytes(state.to_bytes()), StylizerState.read(state.write(tmp_path / "s"))):
        assert again.to_json() == state.to_json()
        assert again.fingerprint() == state.fingerprint()
        assert np.array_equal(again.reference, state.reference)


def test_a_deep_copy_has_every_network_and_shares_none(stylizer: OSASISStylizer) -> None:
    copied, images = copy.deepcopy(stylizer), unit_images(1)
    assert list(copied.networks) == list(stylizer.networks)
    assert copied.decoder is not stylizer.decoder
    assert torch.equal(copied.stylize(images, readout="raw"), stylizer.stylize(images, readout="raw"))


def test_maps_alone_can_be_compiled_and_are_left_as_they_are(maps_alone: OSASISStylizer) -> None:
    assert maps_alone.compile(backend="eager") is maps_alone
