"""nnU-Net's checkpoints, checked before they are read and read without running what may be in them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_osasis.errors import OsasisError

_NEEDED = ("network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What nnU-Net saved, on the CPU; tensors, numbers, text and containers of them, nothing else.

    The archive's own checksums are compared first, because torch does not: a flipped bit in a weight loads silently.
    Raises ``OsasisError`` for a missing or damaged file, for one that would run code, and for one that is not a
    checkpoint of nnU-Net or has weights that are not finite.
    """
    path = Path(path)
    _require_whole(path)
    try:
        with torch.serialization.safe_globals(_numpy_numbers()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise OsasisError(
            "A checkpoint may hold tensors, numbers and text only, anything else could run a program when it is read",
            found=f"{_first_line(error)} in {path}",
            remedy="Take the file nnU-Net wrote itself.",
        ) from error
    except (RuntimeError, ValueError, TypeError, KeyError, EOFError, OSError) as error:
        raise _damaged(path, _first_line(error)) from error
    _require_nnunet(path, checkpoint)
    return checkpoint


def _numpy_numbers() -> list[Any]:
    """What nnU-Net's losses and scores need to be read, as numpy 1 and numpy 2 name it."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    kinds = [type(np.dtype(name)) for name in ("float16", "float32", "float64", "int32", "int64", "bool")]
    return [np.dtype, scalar, (scalar, "numpy.core.multiarray.scalar"), *kinds]


def _require_whole(path: Path) -> None:
    if not path.is_file():
        raise OsasisError(
            "The checkpoint must exist", found=f"no file {path}", remedy="Finish the training, or name another (-chk)."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError) as error:
        raise _damaged(path, str(error)) from error
    if broken is not None:
        raise _damaged(path, f"a wrong checksum of {broken}")


def _require_nnunet(path: Path, checkpoint: Any) -> None:
    missing = [key for key in _NEEDED if not isinstance(checkpoint, dict) or key not in checkpoint]
    if not missing:
        if not isinstance(checkpoint["init_args"], dict) or "configuration" not in checkpoint["init_args"]:
            missing.append("configuration")
        if not _are_weights(checkpoint["network_weights"]):
            missing.append("tensors in network_weights")
    if missing:
        raise OsasisError(
            "The file must be a checkpoint of nnU-Net",
            found=f"no {', '.join(missing)} in {path}",
            remedy="Take fold_x/checkpoint_final.pth of a model folder.",
        )
    for name, tensor in checkpoint["network_weights"].items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise OsasisError(
                "A model's weights must be finite",
                found=f"NaN or infinity in {name} of {path}",
                remedy="That training failed: repeat it, or take an earlier checkpoint (-chk checkpoint_best.pth).",
            )


def _are_weights(found: Any) -> bool:
    pairs = found.items() if isinstance(found, dict) else ()
    return bool(pairs) and all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in pairs)


def _damaged(path: Path, why: str) -> OsasisError:
    return OsasisError("The checkpoint must be whole", found=f"{why} in {path}", remedy="Copy the file again.")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
