"""A stylizer as an ONNX file: any batch and size, PyTorch's answer, whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from specimens import unit_images

from nnunet_osasis import OsasisError
from nnunet_osasis.networks import portable
from nnunet_osasis.scripts import export
from nnunet_osasis.stylizer import onnx as stylizer_as_file
from nnunet_osasis.stylizer.onnx import export_one_pass
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

ONNX = all(portable.importlib.util.find_spec(name) for name in portable.FORMS["onnx"].packages)
NEEDS_ONNX = pytest.mark.skipif(not ONNX, reason="the optional packages of the extra 'export' are not installed")


@NEEDS_ONNX
@pytest.mark.parametrize(
    ("readout", "direction"),
    [("student", "target_to_source"), pytest.param("combined", "source_to_target", marks=pytest.mark.slow)],
)
def test_the_file_restyles_as_pytorch_does_at_any_size(
    stylizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, readout: str, direction: str
) -> None:
    import onnx
    import onnxruntime

    path = tmp_path / "restyle.onnx"
    command = ["--stylizer", str(stylizer_folder), "-o", str(path), "--readout", readout, "--direction", direction]
    export.main([*command, "--format", "onnx"])
    assert "largest difference to PyTorch" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    stylizer = OSASISStylizer.from_pretrained(stylizer_folder)
    module = stylizer.one_pass(direction, readout)
    for batch, size in ((1, (32, 32)), (3, (47, 20)), (2, (130, 75))):
        images = torch.nn.functional.interpolate(unit_images(batch), size=size)
        images[..., :3] = -1
        strength = torch.linspace(1, 0, batch)
        found = session.run(["restyled"], {"image": images.numpy(), "strength": strength.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(found), module(images, strength), atol=1e-4, rtol=0)
    facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert facts["stylizer"] == stylizer.configured(readout=readout or stylizer.config.readout).fingerprint
    assert (facts["readout"], facts["direction"]) == (readout, direction)
    assert json.loads(facts["intensity"])["high"] == stylizer.config.intensity.high
    assert str(Path(__file__).parents[3]).encode() not in path.read_bytes()
    before = path.read_bytes()
    with pytest.raises(OsasisError, match="must not exist"):
        export.main(command)
    assert path.read_bytes() == before


@NEEDS_ONNX
def test_a_file_that_answers_otherwise_is_not_written(
    stylizer: OSASISStylizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stylizer_as_file, "_onnx", lambda module: b"")
    monkeypatch.setattr(stylizer_as_file, "_with_facts", lambda data, *rest: data)
    monkeypatch.setattr(stylizer_as_file, "_largest_difference", lambda module, data: 0.01)
    with pytest.raises(OsasisError, match="as PyTorch does"):
        export_one_pass(stylizer, tmp_path / "restyle.onnx")
    assert list(tmp_path.iterdir()) == []


@NEEDS_ONNX
def test_other_names_and_folders_are_refused(stylizer: OSASISStylizer, tmp_path: Path) -> None:
    for name, message in (("restyle.pt", "must end in .onnx"), ("folder.onnx", "must not exist")):
        (tmp_path / "folder.onnx").mkdir(exist_ok=True)
        with pytest.raises(OsasisError, match=message):
            export_one_pass(stylizer, tmp_path / name, overwrite=True)


@pytest.mark.parametrize(
    "options",
    [
        ["--stylizer", "s", "-o", "x.onnx", "--format", "torchscript"],
        ["--stylizer", "s", "-o", "x.onnx", "-f", "0"],
        ["--stylizer", "s", "-d", "1", "-o", "x"],
        ["-d", "1", "-c", "2d", "-o", "x", "--direction", "target_to_source"],
    ],
)
def test_options_that_do_not_go_together_are_refused(options: list[str]) -> None:
    with pytest.raises(SystemExit):
        export.main(options)
