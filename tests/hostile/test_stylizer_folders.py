"""Stylizer folders from elsewhere, checksums made right by whoever changed them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from specimens import draw

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.runtime.records import write_sealed_json
from nnunet_osasis.runtime.storage import load_tensors, save_tensors, sha256_of_file

from .harness import Bad, bad

INDEX = "stylizer.json"
WEIGHTS = "autoencoder/diffusion_pytorch_model.safetensors"
NAN, INF = float("nan"), float("inf")
DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 10_000
HELD = {"limit": -0.9, "share": 1.0, "area": 0.3}
FRAMES = (
    [], [1], "x", 3, True, {}, {"limit": -0.9}, HELD | {"magic": 1}, HELD | {"limit": "-0.9"}, HELD | {"limit": True},
    *(HELD | {"limit": value} for value in (NAN, INF, -INF, -1.5, 0.0, 1e300, None, [-0.9])),
    HELD | {"share": 0.0}, HELD | {"share": 2.0}, HELD | {"area": NAN}, HELD | {"area": 1.0},
)  # fmt: skip

Edit = Callable[[Path], object]


def reseal(folder: Path, change: Callable[[dict[str, Any]], object] = lambda index: None) -> None:
    """Change the index as an attacker would: all checksums fit again."""
    index = json.loads((folder / INDEX).read_text())
    change(index)
    if isinstance(index.get("sha256"), dict):
        for name in index["sha256"]:
            if (folder / name).is_file():
                index["sha256"][name] = sha256_of_file(folder / name)
    write_sealed_json(folder / INDEX, index)


def setting(place: str, value: Any) -> Edit:
    """Put ``value`` at ``a/b/c`` of the index."""

    def change(index: dict[str, Any]) -> None:
        *parts, last = place.split("/")
        for part in parts:
            index = index[part]
        index[last] = value

    return lambda folder: reseal(folder, change)


def affine(rows: list[list[Any]]) -> dict[str, Any]:
    """A map without terms, whose numbers may be anything."""
    return {"coefficients": rows, "terms": [], "low": [-1] * len(rows), "high": [1] * len(rows)}


def networks(file: str, key: str, value: Any) -> Edit:
    """Change one entry of a network's configuration."""

    def edit(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
        reseal(folder)

    return edit


def raw(name: str, data: bytes, *, sealed: bool = True) -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(data)
        if sealed:
            reseal(folder)

    return edit


def weights(change: Callable[[dict[str, torch.Tensor]], object], name: str = WEIGHTS) -> Edit:
    def edit(folder: Path) -> None:
        tensors = {key: value.clone() for key, value in load_tensors(folder / name, what="weights").items()}
        change(tensors)
        (folder / name).unlink()
        save_tensors(folder / name, tensors)
        reseal(folder)

    return edit


def _first_to(value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        next(iter(tensors.values())).view(-1)[0] = value

    return change


def _cut(name: str, share: float) -> Edit:
    def edit(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])
        reseal(folder)

    return edit


def index_edits() -> dict[str, Edit]:
    """Values of the index that change what happens to an image."""
    edits: dict[str, Edit] = {}
    wrong: dict[str, tuple[Any, ...]] = {
        "format": (0, 3, "2", None, [2], True, 2.5, -1),
        "config": (None, [], "x", {}, 3),
        "config/readout": ("magic", None, 3, ["pair"], ""),
        "config/strength": (-0.1, 1.1, "1", None, True, 1e30, [1]),
        "config/detail": ("yes", 1, None),
        "config/surplus": (1,),
        "config/intensity": (None, {}, {"kind": "fixed"} | {"step": 3}, [0, 255]),
        "config/intensity/kind": ("magic", None, 1),
        "config/intensity/low": ("0", None, 255.0, 1e29, True, [0]),
        "config/intensity/high": (-1, "255", None, 1e35),
        "config/sampler": (None, {}, {"t": 3}),
        "config/sampler/t0": (0, 1000, -5, 3.5, "300", None, True, 10**9),
        "config/sampler/encode_steps": (0, 10**9, "4", None, 2.5),
        "config/sampler/grid_power": (-1, "2", 1e10, None, True),
        "config/sampler/spn_weight": ("0.1", 1e10, None),
        "config/sampler/mix": ("magic", None),
        "config/sampler/level_alignment": ("magic", 3),
        "maps": (None, [], "x", {"pair": None}, {"pair": {}}, {"pair": affine([[0, 0]])},
                 {"pair": affine([[1e29] * 3 + ["a"]] * 3)}, {"pair": {"mean_of": [],
                     "confidence": 1}},
                 {"pair": {"mean_of": [affine([[0] * 4] * 3)], "confidence": 2}},
                 {"pair": {"coefficients": [[0]], "terms": ["magic"], "low": [0], "high": [1]}},
                 {"pair": {"coefficients": [[0] * 4] * 3, "terms": [], "low": [0], "high": [1]}},
                 {"pair": {"coefficients": [["a"] * 4] * 3, "terms": [], "low": [0] * 3, "high": [1] * 3}},
                 {f"map {i}": affine([[0] * 4] * 3) for i in range(2000)}),
        "card": (None, [], "x", 3),
        "findings": ([], "x", 3),
        "detail": ([], "x", {"magic": 1}),
        "frame": FRAMES,
        "sha256": (None, [], {}, {"../../etc/passwd": "0"}),
    }  # fmt: skip
    for place, values in wrong.items():
        for value in values:
            shown = repr(value) if len(repr(value)) < 60 else f"{repr(value)[:50]} and more"
            edits[f"{place} = {shown}"] = setting(place, value)
    for number in (NAN, INF, -INF, 1e31):
        edits[f"a map of {number}"] = setting("maps", {"pair": affine([[number, 0, 0, 0], [0] * 4, [0] * 4])})
        edits[f"strength of {number}"] = setting("config/strength", number)
    nested = affine([[0] * 4] * 3)
    for _ in range(200):
        nested = {"mean_of": [nested], "confidence": 1}
    edits["a mean of means of means"] = setting("maps", {"pair": nested})
    return edits


def file_edits() -> dict[str, Edit]:
    """Files that are cut, foreign, missing, or no files."""
    config, spn = "autoencoder/config.json", "spn/config.json"
    edits = {
        f"{key} of {file} = {value!r:.40}": networks(file, key, value)
        for file, key, values in (
            (config, "in_channels", (0, -1, 1, 10**9, "3", None, 2.5)),
            (config, "sample_size", (0, -32, 10**6, 10**12, "32", 4096)),
            (config, "block_out_channels", ([], [16] * 100, [10**7] * 3, ["a"], None, 16, [[16]])),
            (config, "encoder_block_out_channels", ([], [0, 0, 0, 0], [-16] * 4)),
            (config, "layers_per_block", (0, -1, 10**9, "1")),
            (config, "attention_sizes", ([10**9], "8", None)),
            (config, "z_dim", (0, -1, 10**8)),
            (config, "norm_groups", (-1, 7, 10**6)),
            (config, "dropout", (-1, 2, 1e300)),
            (config, "quantization_config", ({"load_in_8bit": True},)),
            (config, "auto_map", ({"AutoModel": "evil--code"},)),
            (spn, "hidden_channels", ([], [10**8, 1], [1] * 1000)),
            (spn, "time", ("magic", 3)),
            (spn, "time_dim", (0, -4, 10**8)),
        )
        for value in values
    }
    for name in (WEIGHTS, "spn/diffusion_pytorch_model.safetensors", "decoder/diffusion_pytorch_model.safetensors"):
        edits |= {f"{name} cut to {share:.0%}": _cut(name, share) for share in (0, 0.001, 0.5, 0.99)}
    huge = (8).to_bytes(8, "little")
    edits |= {
        "weights that are a pickle": raw(WEIGHTS, b"\x80\x04cos\nsystem\n(S'touch owned'\ntR."),
        "weights with a header of 2**60 bytes": raw(WEIGHTS, (2**60).to_bytes(8, "little") + b"{}"),
        "weights with a header of text": raw(WEIGHTS, huge + b"magic!!!"),
        "weights of NaN": weights(_first_to(NAN)),
        "weights of infinity": weights(_first_to(INF)),
        "a decoder of NaN": weights(_first_to(NAN), "decoder/diffusion_pytorch_model.safetensors"),
        "weights without one": weights(lambda tensors: tensors.popitem()),
        "a reference of NaN": weights(lambda t: t.update(reference=torch.full((3, 8, 8), NAN)),
        "reference.safetensors"),
        "a reference of one channel": weights(lambda t: t.update(reference=torch.zeros(1, 8, 8)),
        "reference.safetensors"),
        "a reference of another name": weights(lambda t: t.update(picture=t.pop("reference")), "reference.safetensors"),
        "an empty reference": weights(lambda t: t.update(reference=torch.zeros(3, 0, 8)), "reference.safetensors"),
        "no index": lambda folder: (folder / INDEX).unlink(),
        "an index of nothing": raw(INDEX, b"", sealed=False),
        "an index of bytes": raw(INDEX, bytes(range(256)), sealed=False),
        "an index that is a list": raw(INDEX, b"[1, 2]", sealed=False),
        "an index of NaN": raw(INDEX, b"NaN", sealed=False),
        "an index nested 100000 deep": raw(INDEX, DEEP.encode(), sealed=False),
        "an index with a number of 10000 digits": raw(INDEX, b'{"format": ' + LONG.encode() + b"}", sealed=False),
        "an index that is cut": lambda folder: os.truncate(folder / INDEX, 200),
        "a network's configuration nested deep": raw(config, DEEP.encode()),
        "a network's configuration of 10000 digits": raw(config, b'{"in_channels": ' + LONG.encode() + b"}"),
        "a network's configuration that is a list": raw(config, b"[]"),
        "an index of shards beside the weights": raw(WEIGHTS + ".index.json", b'{"weight_map": {"a": "../../x"}}'),
        "a pickle beside the weights": raw("autoencoder/diffusion_pytorch_model.bin", b"\x80\x04."),
        "a missing network": lambda folder: shutil.rmtree(folder / "spn"),
        "a network that is a file": lambda folder: (shutil.rmtree(folder / "spn"), (folder / "spn").touch())[:0],
        "an index that is a folder": lambda folder: ((folder / INDEX).unlink(), (folder / INDEX).mkdir())[:0],
        "an index that is a pipe": lambda folder: ((folder / INDEX).unlink(), os.mkfifo(folder / INDEX))[:0],
        "an index that links to itself": lambda folder: ((folder / INDEX).unlink(),
        (folder / INDEX).symlink_to(INDEX))[:0],
    }  # fmt: skip
    return edits


def _case(name: str, edit: Edit) -> Bad:
    def make(folder: Path) -> Callable[[], Any]:
        edit(folder / "s")

        def use() -> Any:
            stylizer = OSASISStylizer.from_pretrained(folder / "s")
            stylizer.configured(readout="pair").stylize_array(draw(0))
            return stylizer.load_networks().stylize_array(draw(0), readout="raw")

        return use

    return Bad(name, make)


CASES = [_case(name, edit) for name, edit in {**index_edits(), **file_edits()}.items()]


@bad(CASES)
def test_a_folder_is_not_trusted_because_its_checksums_fit(
    case: Bad, stylizer_folder: Path, tmp_path: Path, ends_well: Callable[[str, Bad], None]
) -> None:
    shutil.copytree(stylizer_folder, tmp_path / "s", ignore=shutil.ignore_patterns("training"))
    ends_well("stylizer folders", case)
    assert not Path("owned").exists()
