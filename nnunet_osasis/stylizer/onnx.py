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
"""Names of the inputs and the output of a file."""

SUFFIX = ".onnx"
"""End of a file's name."""

MIN_SIDE_PX = 4
"""Smallest side of an image in pixels."""

TRIALS = ((1, 64, 64), (3, 57, 131), (2, 250, 96), (1, 33, 12))
"""Batch, height and width that a file is compared with PyTorch on before it is kept: odd, wide, high, small."""


def export_one_pass(
    stylizer: OSASISStylizer,
    path: Path,
    *,
    direction: str = "source_to_target",
    readout: str | None = None,
    overwrite: bool = False,
) -> float:
    """Write ``stylizer.as_module(direction, readout)`` to a file, whole or not at all.

    The file takes ``image`` ``(B, C, H, W)`` float32 in [-1, 1], every axis but the channels of any size, and
    ``strength`` ``(B,)`` in [0, 1]; it returns ``restyled`` like ``image``. Its metadata say how native units map onto
    [-1, 1].

    Args:
        stylizer: what is exported.
        path: ends in ``.onnx``.
        direction: ``source_to_target`` or ``target_to_source``.
        readout: overrides the configured one.
        overwrite: whether a file may be replaced.

    Returns:
        the largest difference to PyTorch over ``TRIALS``.

    Raises:
        OsasisError: a read-out that is not one pass, missing packages, an existing file, or a file that differs from
            PyTorch.
    """
    FORMS["onnx"].require_packages()
    if path.suffix != SUFFIX:
        raise OsasisError(f"The file's name must end in {SUFFIX}", found=path, remedy=f"Such as restyle{SUFFIX}.")
    if path.is_dir() or (path.exists() and not overwrite):
        raise OsasisError("The file must not exist", found=path, remedy="Choose another -o, or add --overwrite.")
    module = stylizer.as_module(direction, readout).to("cpu")
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
    batch, height, width = (
        torch.export.Dim(name, min=low) for name, low in (("b", 1), ("h", MIN_SIDE_PX), ("w", MIN_SIDE_PX))
    )
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
        "stylizer": stylizer.configured(readout=readout).fingerprint,
    }
    onnx.helper.set_model_props(model, facts)
    return model.SerializeToString(deterministic=True)


@torch.inference_mode()
def _largest_difference(module: OnePass, data: bytes) -> float:
    """Compare the file with PyTorch over ``TRIALS`` with a frame; infinity unless strength 0 keeps every bit."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    largest = 0.0
    for batch, height, width in TRIALS:
        generator = torch.Generator().manual_seed(height)
        images = torch.rand((batch, module.channels, height, width), generator=generator) * 2 - 1
        images[..., : width // 8] = -1
        for strength in (torch.ones(batch), torch.linspace(0, 1, batch)):
            inputs = {"image": images.numpy(), "strength": strength.numpy()}
            answer = torch.from_numpy(session.run([OUTPUT], inputs)[0])
            kept = strength == 0
            if answer.shape != images.shape or not torch.equal(answer[kept], images[kept]):
                return float("inf")
            largest = max(largest, float((answer - module(images, strength)).abs().max()))
    return largest
