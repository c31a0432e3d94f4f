"""A stylizer's one pass as an ONNX file: for pipelines without PyTorch and without this package."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.networks.portable import FORMS, onnx_bytes
from nnunet_osasis.runtime.records import as_json
from nnunet_osasis.runtime.storage import atomic_write_bytes

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.one_pass import OnePass
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

INPUTS, OUTPUT = ["image", "strength"], "restyled"

SUFFIX = ".onnx"

LEAST = 4
"""Pixels a side must have."""

TRIED = ((1, 64, 64), (3, 57, 131), (2, 250, 96), (1, 33, 12))
"""Batch, height and width the file is compared with PyTorch on before it is kept: odd, wide, high, small."""


def export_one_pass(
    stylizer: OSASISStylizer,
    path: Path,
    *,
    direction: str = "source_to_target",
    readout: str | None = None,
    overwrite: bool = False,
) -> float:
    """Write ``stylizer.one_pass(direction, readout)`` to ``path``, whole or not at all.

    The file takes ``image`` ``(B, C, H, W)`` float32 in [-1, 1], every axis but the channels of any size, and
    ``strength`` ``(B,)`` in [0, 1]; it gives ``restyled`` like ``image``. How native units map onto [-1, 1] stands in
    its metadata. Returns the largest difference to PyTorch that was found.

    Raises ``OsasisError`` for a read-out that is not one pass, missing packages, a file that is there already, and a
    file that answers otherwise than PyTorch.
    """
    FORMS["onnx"].require_packages()
    if path.suffix != SUFFIX:
        raise OsasisError(f"The file's name must end in {SUFFIX}", found=path, remedy=f"Such as restyle{SUFFIX}.")
    if path.is_dir() or (path.exists() and not overwrite):
        raise OsasisError("The file must not exist", found=path, remedy="Choose another -o, or add --overwrite.")
    module = stylizer.one_pass(direction, readout).to("cpu")
    data = _with_facts(_onnx(module), stylizer, direction, readout or stylizer.config.readout)
    difference = _largest_difference(module, data)
    if not difference <= FORMS["onnx"].tolerance:
        raise OsasisError(
            "The exported file must restyle as PyTorch does",
            found=f"a difference of {difference:.3g}",
            remedy="Nothing was written. Try other versions of torch, onnxscript and onnxruntime.",
        )
    atomic_write_bytes(path, data)
    return difference


def _onnx(module: OnePass) -> bytes:
    batch, height, width = (torch.export.Dim(name, min=low) for name, low in (("b", 1), ("h", LEAST), ("w", LEAST)))
    example = (torch.zeros(2, module.channels, 96, 120), torch.ones(2))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="# The axis name")  # that both inputs have one batch is meant
        return onnx_bytes(module, example, INPUTS, OUTPUT, ({0: batch, 2: height, 3: width}, {0: batch}))


def _with_facts(data: bytes, stylizer: OSASISStylizer, direction: str, readout: str) -> bytes:
    import onnx

    model = onnx.load_model_from_string(data)
    facts = {
        "use": f"image (B, {stylizer.in_channels}, H, W) float32 in [-1, 1], strength (B,) in [0, 1]; research only",
        "intensity": json.dumps(as_json(stylizer.config.intensity), sort_keys=True),
        "direction": direction,
        "readout": readout,
        "stylizer": stylizer.fingerprint,
    }
    onnx.helper.set_model_props(model, facts)
    return model.SerializeToString(deterministic=True)


@torch.inference_mode()
def _largest_difference(module: OnePass, data: bytes) -> float:
    """Over pictures of several sizes with a frame, at several strengths; infinity unless 0 keeps every bit."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = 0.0
    for batch, height, width in TRIED:
        generator = torch.Generator().manual_seed(height)
        images = torch.rand((batch, module.channels, height, width), generator=generator) * 2 - 1
        images[..., : width // 8] = -1
        for strength in (torch.ones(batch), torch.linspace(0, 1, batch)):
            given = {"image": images.numpy(), "strength": strength.numpy()}
            answer = torch.from_numpy(session.run([OUTPUT], given)[0])
            kept = strength == 0
            if answer.shape != images.shape or not torch.equal(answer[kept], images[kept]):
                return float("inf")
            found = max(found, float((answer - module(images, strength)).abs().max()))
    return found
