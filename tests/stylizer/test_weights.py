"""A stylizer with a tensor missing, added, of another shape or type is refused by name when it is read."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.runtime.records import read_sealed_json, write_sealed_json
from nnunet_osasis.runtime.storage import sha256_of_file
from nnunet_osasis.stylizer.networks import NETWORKS, WEIGHTS, StoredNetwork, _class_of
from nnunet_osasis.stylizer.weights import TYPE, check_weights, expected_weights
from nnunet_osasis.training.presets import PRESETS

ODD = {
    "sample_size": 24, "block_out_channels": (16, 48, 32), "encoder_block_out_channels": (16, 16, 32, 64),
    "layers_per_block": 3, "attention_sizes": (12, 3), "time_dim": 48, "z_dim": 20, "norm_groups": 4, "in_channels": 5,
}  # fmt: skip

CONFIGS: dict[str, list[dict[str, Any]]] = {
    "autoencoder": [{}, ODD, *({**preset.model, "in_channels": 1} for preset in PRESETS.values())],
    "spn": [{}, {"in_channels": 2, "hidden_channels": (48, 24), "time_dim": 40}, *(p.spn for p in PRESETS.values())],
    "calibrator": [{}, {"channels": 4, "terms": ("tone", "field"), "width": 16, "hidden": 24}],
    "student": [{}, {"channels": 2, "width": 8}],
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name, configs in CONFIGS.items() for i in range(len(configs))]
)
def test_the_expected_weights_are_those_of_the_network(name: str, number: int) -> None:
    with torch.device("meta"):
        network = _class_of(name)(**CONFIGS[name][number])
        parts = {name: network} | ({"decoder": network.make_unet()} if name == "autoencoder" else {})
    for part, module in parts.items():
        expected = dict(expected_weights(part, network.config))
        assert expected == {key: tuple(value.shape) for key, value in module.state_dict().items()}
        check_weights(part, network.config, {key: (TYPE, shape) for key, shape in expected.items()}, "memory")


def missing(weights: dict[str, torch.Tensor], key: str) -> str:
    del weights[key]
    return key


def extra(weights: dict[str, torch.Tensor], key: str) -> str:
    weights[f"{key}.extra"] = torch.zeros(3)
    return f"{key}.extra"


def reshaped(weights: dict[str, torch.Tensor], key: str) -> str:
    weights[key] = weights[key].flatten()[:-1].clone()
    return key


def other_type(weights: dict[str, torch.Tensor], key: str) -> str:
    weights[key] = weights[key].double()
    return key


CHANGES: tuple[Callable[[dict[str, torch.Tensor], str], str], ...] = (missing, extra, reshaped, other_type)


@pytest.mark.parametrize(
    ("part", "change"), [*product(NETWORKS, CHANGES), *(("reference", change) for change in CHANGES[:3])]
)
def test_a_folder_with_other_tensors_is_refused_by_name(
    stylizer_folder: Path, tmp_path: Path, part: str, change: Callable[[dict[str, torch.Tensor], str], str]
) -> None:
    folder = tmp_path / "forged"
    shutil.copytree(stylizer_folder, folder, ignore=shutil.ignore_patterns("training"))
    name = f"{part}/{WEIGHTS}" if part in NETWORKS else f"{part}.safetensors"
    path = folder / name
    weights = load_file(path)
    named = change(weights, sorted(weights)[len(weights) // 2])
    save_file(weights, path)
    index: dict[str, Any] = read_sealed_json(folder / "stylizer.json", what="index")
    index["sha256"][name] = sha256_of_file(path)
    write_sealed_json(folder / "stylizer.json", index)
    with pytest.raises(OsasisError, match=f"stylizer's {part} .*{named}.*{path}"):
        OSASISStylizer.from_pretrained(folder)


@pytest.mark.parametrize("change", CHANGES)
def test_a_network_is_checked_again_when_it_is_built(
    stylizer: OSASISStylizer, change: Callable[[dict[str, torch.Tensor], str], str]
) -> None:
    weights = dict(stylizer.calibrator.state_dict())
    config: Mapping[str, Any] = stylizer.networks.config("calibrator")
    named = change(weights, "head.2.weight")
    stored = StoredNetwork("calibrator", lambda: config, lambda: weights, 3)
    with pytest.raises(OsasisError, match=f"stylizer's calibrator .*{named}"):
        stored.build()


def test_reading_a_stylizer_imports_no_diffusers_and_reads_no_weights(stylizer_folder: Path) -> None:
    code = (
        "import sys\nfrom nnunet_osasis import OSASISStylizer\n"
        f"stylizer = OSASISStylizer.from_pretrained({str(stylizer_folder)!r})\n"
        "assert not stylizer.networks.loaded() and 'diffusers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("depth", "width"), [(6, 1), (2, 1100), (5, 6)], ids=["deep", "wide", "both"])
def test_means_of_maps_are_limited_in_depth_and_number(
    stylizer_folder: Path, tmp_path: Path, depth: int, width: int
) -> None:
    folder = tmp_path / "forged"
    shutil.copytree(stylizer_folder, folder, ignore=shutil.ignore_patterns("training"))
    index: dict[str, Any] = read_sealed_json(folder / "stylizer.json", what="index")
    nested = index["maps"]["moments"]
    for _ in range(depth - 1):
        nested = {"mean_of": [nested] * width, "confidence": 1.0}
    index["maps"]["moments"] = nested
    write_sealed_json(folder / "stylizer.json", index)
    with pytest.raises(OsasisError, match="at most"):
        OSASISStylizer.from_pretrained(folder)
