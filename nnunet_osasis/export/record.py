"""What an export was made from, and what was checked."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from nnunet_osasis.export.comparison import Comparison
from nnunet_osasis.export.model_folder import ModelFolder
from nnunet_osasis.runtime.records import write_sealed_json
from nnunet_osasis.runtime.storage import sha256_of_file

RECORD = "osasis_export.json"
NOTICE = "Research use only; not a medical device. Whoever deploys this model has to validate it where it is used."
_PACKAGES = ("nnunet-osasis", "nnunetv2", "torch", "numpy", "dynamic_network_architectures")
_PACKAGES_OF = {"onnx": ("onnx", "onnxscript", "onnxruntime")}


def write_record(
    folder: Path,
    model: ModelFolder,
    *,
    trainer: str,
    configuration: str,
    form: str,
    sources: dict[str, str],
    compared: dict[str, Comparison],
) -> None:
    """Write ``osasis_export.json`` over all files that are in ``folder`` by now; no paths and no times in it.

    Args:
        form: ``nnunet``, ``onnx`` or ``torchscript``.
        sources: SHA-256 of the checkpoint of every fold. compared: what was found for it.
    """
    packages = (*_PACKAGES, *_PACKAGES_OF.get(form, ()))
    versions: dict[str, Any] = {name: metadata.version(name) for name in packages}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    record = {
        "format": 1,
        "notice": NOTICE,
        "form": form,
        "dataset": model.dataset,
        "trainer": trainer,
        "plans": model.plans_name,
        "configuration": configuration,
        "checkpoint": next(iter(model.checkpoints.values())).name,
        "folds": {
            fold: {"checkpoint_sha256": sources[fold], "compared": compared[fold].as_json()} for fold in compared
        },
        "files_sha256": {str(path.relative_to(folder).as_posix()): sha256_of_file(path) for path in files},
        "versions": {"python": platform.python_version(), **versions},
    }
    write_sealed_json(folder / RECORD, record)
