"""Networks as files that need none of our code: ONNX and TorchScript."""

from __future__ import annotations

import importlib.util
import io
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.storage import atomic_write_bytes

INPUT, OUTPUT = "image", "logits"
"""Names of the input and the output of a file."""

OPSET = 18
"""ONNX operator set that the exporters of torch 2.8 and newer write; runtimes of 2023 and later read it."""

Run = Callable[[torch.Tensor], torch.Tensor]
"""A network read from a file: patches ``(B, C, *patch)`` to logits."""


@dataclass(frozen=True)
class PortableForm:
    """One file format.

    Attributes:
        suffix: end of its file names.
        tolerance: largest accepted difference to PyTorch's logits, as a share of the largest logit if that is above 1;
            0 asks for equality of every bit.
        write: writes a network to a file, given example patches ``(2, C, *patch)``.
        read: reads that file as a function of patches.
        packages: modules that it needs.
    """

    suffix: str
    tolerance: float
    write: Callable[[torch.nn.Module, torch.Tensor, Path], object]
    read: Callable[[Path], Run]
    packages: tuple[str, ...] = ()

    def require_packages(self, otherwise: str = "") -> None:
        """Raise ``OsasisError`` when something this format needs is not installed; ``otherwise`` is another remedy."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise OsasisError(
                f"This format needs {', '.join(self.packages)}",
                found=f"no {', '.join(missing)}",
                remedy=f"Run: pip install {' '.join(self.packages)}{otherwise}",
            )


def write_onnx(network: torch.nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write ONNX with a free batch size and the example's patch size; paths of this machine are taken out."""
    free = ({0: torch.export.Dim("batch")},)
    atomic_write_bytes(path, onnx_bytes(network, (example,), [INPUT], OUTPUT, free))


def onnx_bytes(
    network: torch.nn.Module, examples: tuple[torch.Tensor, ...], inputs: list[str], output: str, free: tuple
) -> bytes:
    """Export a network as ONNX; ``free`` names each input's axes of any size."""
    import onnx

    program = torch.onnx.export(
        network,
        examples,
        input_names=inputs,
        output_names=[output],
        dynamic_shapes=free,
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto  # type: ignore[union-attr]
    for node in model.graph.node:
        del node.metadata_props[:]  # where in whose source the operation stood
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def read_onnx(path: Path) -> Run:
    """Read an ONNX file into ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda patches: torch.from_numpy(session.run([OUTPUT], {INPUT: patches.numpy()})[0])


def write_torchscript(network: torch.nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write a traced network; any batch size, the example's patch size."""
    stream = io.BytesIO()
    with torch.inference_mode(), _no_deprecation():
        torch.jit.save(torch.jit.trace(network, example, check_trace=False), stream)
    atomic_write_bytes(path, _without_sources(stream.getvalue()))


def _without_sources(archive: bytes) -> bytes:
    """Remove the archive's notes on the source line of each operation."""
    slim = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(slim, "w", zipfile.ZIP_STORED) as new:
        for entry in sorted(old.infolist(), key=lambda entry: entry.filename):
            if not entry.filename.endswith(".debug_pkl"):
                new.writestr(zipfile.ZipInfo(entry.filename), old.read(entry))
    return slim.getvalue()


def read_torchscript(path: Path) -> Run:
    """Read a TorchScript file on the CPU."""
    with _no_deprecation():
        loaded: Any = torch.jit.load(str(path), map_location="cpu")
    return loaded.eval()


class _no_deprecation(warnings.catch_warnings):
    """Hides TorchScript's deprecation: files of ``torch.export``, its successor, need one version of torch.

    It also hides the tracer's warnings, as the size of an image is meant to be fixed.
    """

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.filterwarnings("ignore", message=r".*torch\.jit\..* is deprecated")
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        return entered


FORMS = {
    "onnx": PortableForm(".onnx", 1e-4, write_onnx, read_onnx, ("onnx", "onnxscript", "onnxruntime")),
    "torchscript": PortableForm(".pt", 0.0, write_torchscript, read_torchscript),
}
"""The file formats by name."""
